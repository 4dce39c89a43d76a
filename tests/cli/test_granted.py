"""The example of a plugin with a Secret and a volume, and what a person is told on the way to it."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from plane import DEADLINE, PLUGINS, Plane, until

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).resolve().parents[2] / "docs/examples/granted.yaml"
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "api"}}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for name in ("one", "two", "three"):
        (folder / name).write_text(name)
    return folder.resolve()


@pytest.fixture
def plane(tmp_path: Path, notes: Path) -> Iterator[Plane]:
    plane = Plane(tmp_path / "state", "--volume", f"notes={notes}:ro")
    yield plane
    run(plane, "delete", "--all")
    assert plane.end() == 0, plane.log()
    assert plane.leftovers() == []


def run(plane: Plane, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "crucible", *words, "--kubeconfig", str(plane.places.kubeconfig)],
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


async def ready(plane: Plane) -> tuple[str, str]:
    async with plane.client() as client:
        status = (await client.get(f"{PLUGINS}/granted")).get("status") or {}
    found = {each["type"]: each for each in status.get("conditions", ())}.get("Ready", {})
    return found.get("reason", ""), found.get("message", "")


async def says(plane: Plane, reason: str) -> str:
    async def said() -> bool:
        return (await ready(plane))[0] == reason

    await until(said, why=plane.log)
    return (await ready(plane))[1]


async def test_the_example_waits_for_its_secret_and_reads_its_volume(plane: Plane, notes: Path) -> None:
    plane.start()
    await plane.ready()
    assert run(plane, "apply", "-f", str(EXAMPLE)).returncode == 0
    assert "kubectl create secret generic api" in await says(plane, "SecretMissing")
    async with plane.client() as client:
        data = {"token": base64.b64encode(b"sesame").decode()}
        await client.create("/api/v1/namespaces/default/secrets", {**SECRET, "data": data})
    await says(plane, "Running")
    await until(
        lambda: "a token of 6 characters, 3 notes" in run(plane, "logs", "granted").stdout, why=plane.log
    )
    described = run(plane, "describe", "granted").stdout
    controls = [line.split()[0] for line in described.splitlines() if " enforced " in line]
    assert {"files", "secrets"} <= set(controls)
    assert not {"listen", "secretEnvironment"} & set(controls)
    assert "sesame" not in described
    (notes / "four").write_text("four")

    async with plane.client() as client:
        wish: dict[str, Any] = {"volume": "notes", "mount": "/data/notes", "access": "write"}
        await client.patch(f"{PLUGINS}/granted", {"spec": {"capabilities": {"files": [wish]}}})
    message = await says(plane, "VolumeUnavailable")
    assert "does not offer notes for writing; it offers notes for reading" in message
