"""What the tests of hosts and images share: programs and archives, made as they are for a user."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runtimes"))  # the process runtime's harness

from harness import ProcessHarness
from imagelib import debian, make, recipes, rune

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from imagelib.make import Made

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 60


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def why(self) -> str:
        return self.err.partition("\n")[0]


class Stage:
    """A folder with what a sandbox shows, and a host that runs programs in it."""

    def __init__(self, root: Path, command: tuple[str, ...]) -> None:
        self.root = root
        self.command = command
        for name in ("plugin", "config", "tmp"):
            (root / name).mkdir()

    def argv(self, name: str, content: str | bytes, *options: str, words: tuple[str, ...] = ()) -> list[str]:
        path = self.root / "plugin" / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return [*self.command, "--root", str(self.root), *options, "--", f"/plugin/{name}", *words]

    def run(self, name: str, content: str | bytes, *options: str, words: tuple[str, ...] = ()) -> Ended:
        done = subprocess.run(
            self.argv(name, content, *options, words=words),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            env={"HOME": "/tmp", "GREETING": "hello", "PATH": os.defpath},
        )
        return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def rune_host() -> Path:
    """The program that runs Rune scripts, built now unless it is up to date."""
    return rune.build(print)


@pytest.fixture
def rune_stage(tmp_path: Path, rune_host: Path) -> Stage:
    return Stage(tmp_path, (str(rune_host),))


@pytest.fixture
def wasm_stage(tmp_path: Path) -> Stage:
    host = REPOSITORY / "controller/crucible/hosts/wasm.py"
    return Stage(tmp_path, (sys.executable, "-I", "-B", str(host)))


@pytest.fixture(scope="session")
def images() -> Mapping[str, Made]:
    """Every image, made now unless it is up to date."""
    try:
        debian.check()
    except debian.Unavailable as reason:
        pytest.skip(str(reason))
    return {one.type: one for one in make.images(recipes.TYPES, print)}


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("roots")


@pytest.fixture
async def process(tmp_path: Path, roots: Path, rune_host: Path) -> AsyncIterator[ProcessHarness]:
    assert rune_host.is_file()
    harness = ProcessHarness(tmp_path, roots, os.environ.get("CRUCIBLE_TEST_CGROUP_PARENT"))
    await harness.open()
    yield harness
    await harness.close()
