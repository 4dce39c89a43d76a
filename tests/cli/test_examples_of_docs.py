"""Every manifest of the documentation, applied as it stands, comes to what it says."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from plane import Plane, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="plugins start with every control enforced only where root runs the controller"
)
EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "docs/examples").glob("*.yaml"))
API = "/apis/crucible.dev/v1alpha1"
NEEDS_PACKAGES = "rpc"
"""Its folder is made with pip, as its first lines say."""
QUARANTINED = "steps"


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    notes = tmp_path / "notes"
    notes.mkdir()
    plane = Plane(tmp_path / "state", "--volume", f"notes={notes.resolve()}:ro")
    plane.start()
    await plane.ready()
    yield plane
    ended = crucible("down", "--state", str(plane.places.root), "--grace", "0s")
    assert ended.startswith("0 "), ended
    plane.end()
    assert plane.leftovers() == []


def crucible(*words: str) -> str:
    command = [sys.executable, "-m", "crucible", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return f"{done.returncode} {done.stdout}{done.stderr}"


async def test_each_comes_to_what_it_says(plane: Plane) -> None:
    wanted = {}
    async with plane.client() as client:
        for path in EXAMPLES:
            if path.stem == NEEDS_PACKAGES:
                continue
            space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": path.stem}}
            await client.create("/api/v1/namespaces", space)
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "api"}}
            data = {"token": base64.b64encode(b"sesame").decode()}
            await client.create(f"/api/v1/namespaces/{path.stem}/secrets", {**secret, "data": data})
            for document in yaml.safe_load_all(path.read_text()):
                await client.create(f"{API}/namespaces/{path.stem}/plugins", document)
                wanted[path.stem, document["metadata"]["name"]] = {}
        assert len(wanted) >= len(EXAMPLES)

        async def settled() -> bool:
            for namespace, name in wanted:
                plugin = await client.get(f"{API}/namespaces/{namespace}/plugins/{name}")
                wanted[namespace, name] = plugin.get("status") or {}
            return all(is_as_told(name, status) for (_, name), status in wanted.items())

        def why() -> Any:
            return {
                key: (status.get("phase"), [one["message"] for one in status.get("conditions", ())])
                for key, status in wanted.items()
                if not is_as_told(key[1], status)
            }

        await until(settled, why=why)


def is_as_told(name: str, status: dict[str, Any]) -> bool:
    if name == QUARANTINED:
        return status.get("phase") == "Quarantined"
    conditions = {one["type"]: one["status"] for one in status.get("conditions", ())}
    return conditions.get("Ready") == "True"
