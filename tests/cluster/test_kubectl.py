"""What people type: kubectl on Plugins, while an operator runs them."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from ground import manifest

if TYPE_CHECKING:
    from ground import Ground

REPOSITORY = Path(__file__).resolve().parents[2]
KUBECTL = REPOSITORY / ".tools/bin/kubectl"
EXAMPLE = REPOSITORY / "docs/examples/cluster.yaml"


async def kubectl(ground: Ground, *words: str, code: int = 0, editor: str = "true") -> str:
    """Run kubectl in the ground's namespace, and return what it printed; it has to end with ``code``."""
    process = await asyncio.create_subprocess_exec(
        *(KUBECTL, "--namespace", ground.namespace, *words),
        env={**os.environ, "KUBECONFIG": str(ground.kubeconfig()), "KUBE_EDITOR": editor},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await asyncio.wait_for(process.communicate(), ground.deadline))[0].decode()
    assert process.returncode == code, f"{words}: {process.returncode}\n{said}\n{await ground.report()}"
    return said


@pytest.fixture(autouse=True)
def present() -> None:
    if not KUBECTL.exists():
        pytest.skip("kubectl is missing: run .venv/bin/python scripts/tools")


async def test_plugins_are_driven_with_the_commands_people_know(ground: Ground, tmp_path: Path) -> None:
    file, ready = tmp_path / "plugin.yaml", ("wait", "plugin/p", "--for=condition=Ready", "--timeout=200s")
    file.write_text(yaml.safe_dump(manifest("p", ground.namespace)))
    assert "plugin.crucible.dev/p created" in await kubectl(ground, "apply", "-f", str(file))
    assert "condition met" in await kubectl(ground, *ready)
    await ground.until_ready("p")
    await kubectl(ground, "diff", "-f", str(file))

    file.write_text(yaml.safe_dump(manifest("p", ground.namespace, replicas=2)))
    assert "+  replicas: 2" in await kubectl(ground, "diff", "-f", str(file), code=1)
    await kubectl(ground, "apply", "--server-side", "--force-conflicts", "-f", str(file))
    await ground.until_ready("p", 2)
    await kubectl(ground, "diff", "--server-side", "--force-conflicts", "-f", str(file))

    await kubectl(ground, "scale", "plugin", "p", "--replicas=1")
    await ground.until_ready("p", 1)
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/version: 1.0.0/version: 1.0.1/' \"$1\"\n")
    editor.chmod(0o755)
    assert "edited" in await kubectl(ground, "edit", "plugin", "p", editor=str(editor))
    await ground.until_ready("p", 1)
    found = json.loads(await kubectl(ground, "get", "plg", "p", "-o", "json"))
    assert (found["spec"]["version"], found["spec"]["replicas"]) == ("1.0.1", 1)

    assert "Running" in await kubectl(ground, "get", "plugins")
    assert "Started" in await kubectl(ground, "describe", "plugin", "p")
    assert "FIELD: memory" in await kubectl(ground, "explain", "plugin.spec.resources.memory")
    assert '"p" deleted' in await kubectl(ground, "delete", "plugin", "p", "--wait", "--timeout=200s")
    await kubectl(ground, "wait", "plugin/p", "--for=delete", "--timeout=200s")
    assert await ground.pods("p") == []


async def test_the_example_for_clusters_runs_on_one(ground: Ground) -> None:
    await kubectl(ground, "apply", "-f", str(EXAMPLE))
    plugin = await ground.until_ready("heartbeat", 2)
    assert len(plugin["status"]["instances"]) == 2


async def test_no_field_reaches_the_node_or_another_namespace(ground: Ground) -> None:
    """Strictly, which is how kubectl asks: what the definition does not know is refused by name."""
    for field, value in {
        "hostNetwork": True,
        "hostPID": True,
        "nodeName": "node-1",
        "serviceAccountName": "admin",
        "volumes": [{"hostPath": {"path": "/"}}],
        "podTemplate": {"spec": {"hostNetwork": True}},
        "securityContext": {"privileged": True},
    }.items():
        body = manifest("bad", ground.namespace, **{field: value})
        said = await kubectl(ground, "create", "-f", await _written(ground, body), code=1)
        assert f'unknown field "spec.{field}"' in said
    for env in (
        {"configMap": {"name": "c", "key": "k"}},
        {"secret": {"name": "s", "key": "k", "namespace": "x"}},
    ):
        body = manifest("bad", ground.namespace, env=[{"name": "A", **env}])
        assert "unknown field" in await kubectl(ground, "create", "-f", await _written(ground, body), code=1)


async def _written(ground: Ground, body: dict[str, object]) -> str:
    path = ground.place / "bad.yaml"
    await asyncio.to_thread(path.write_text, yaml.safe_dump(body))
    return str(path)
