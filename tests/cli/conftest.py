"""One real control plane for all tests of this folder, and commands as people run them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from crucible.settings import Places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE = 180.0
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def await_true(seen: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait until something is so; fail with what is so instead."""
    deadline = time.monotonic() + DEADLINE
    while not seen():
        if time.monotonic() > deadline:
            pytest.fail(f"not seen within {DEADLINE:g} s: {what()}")
        time.sleep(0.05)


@pytest.fixture(scope="session")
def eventually() -> Any:
    return await_true


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Start ``crucible up`` on a state folder of its own, and stop it at the end."""
    folder = tmp_path_factory.mktemp("plane")
    log = folder / "up.log"
    command = [sys.executable, "-m", "crucible", "up", "--state", str(folder / "state")]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        await_true(lambda: "is ready" in log.read_text() or process.poll() is not None, log.read_text)
        assert process.poll() is None, log.read_text()
        yield Places(folder / "state")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0, log.read_text()
        assert "Traceback" not in log.read_text()


@pytest.fixture(scope="session")
def environment(places: Places) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"KUBECONFIG", "NO_COLOR"}}
    return {**kept, "CRUCIBLE_STATE": str(places.root), "COLUMNS": "120", "TERM": "xterm"}


@pytest.fixture(scope="session")
def command() -> list[str]:
    return [sys.executable, "-m", "crucible"]


@pytest.fixture
def crucible(environment: dict[str, str], command: list[str]) -> Iterator[Any]:
    def call(*words: str, stdin: str | None = None) -> Ended:
        done = subprocess.run(
            [*command, *words],
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)

    yield call
    call("delete", "--all")


@pytest.fixture
def manifest(tmp_path: Path) -> Any:
    """Write the manifest of a small Python plugin."""

    def write(program: str, name: str = "demo", **spec: Any) -> str:
        content = {
            "apiVersion": "crucible.dev/v1alpha1",
            "kind": "Plugin",
            "metadata": {"name": name},
            "spec": {
                "version": "1.0.0",
                "type": "python",
                "source": {"inline": {"main.py": program}},
                "entrypoint": ["main.py"],
                **spec,
            },
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return write
