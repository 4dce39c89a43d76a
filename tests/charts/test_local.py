"""The chart and the local control plane: it takes the definition, and refuses the rest of a cluster whole."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from release import CHART, HELM, Object, Ran, of_kind

from crucible.control.apiserver import ApiServer, ServerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from release import Release

PLUGIN: Object = {
    "apiVersion": "crucible.dev/v1alpha1",
    "kind": "Plugin",
    "metadata": {"name": "a"},
    "spec": {
        "version": "1.0.0",
        "type": "python",
        "source": {"inline": {"main.py": "print(1)"}},
        "entrypoint": ["main.py"],
    },
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    async with ApiServer(ServerSettings(state_dir=tmp_path / "state")) as running:
        yield running


@pytest.fixture
def run(server: ApiServer, tmp_path: Path) -> Any:
    async def ran(program: str, *argv: str, stdin: str = "") -> Ran:
        process = await asyncio.create_subprocess_exec(
            *(HELM.parent / program, *argv),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "HOME": str(tmp_path), "KUBECONFIG": str(server.kubeconfig)},
        )
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
        return Ran(process.returncode or 0, out.decode(), err.decode())

    return ran


async def test_the_definition_the_chart_renders_serves_plugins(run: Any, release: Release) -> None:
    for one in (*of_kind(release.objects(), "CustomResourceDefinition"), PLUGIN):
        made = await run("kubectl", "apply", "--server-side", "-f", "-", stdin=json.dumps(one))
        assert made.code == 0, made.err
    listed = await run("kubectl", "get", "plugins", "-o", "name")
    assert listed.out == "plugin.crucible.dev/a\n"


async def test_a_release_is_refused_before_anything_of_it_is_made(run: Any) -> None:
    refused = await run("helm", "install", "crucible", str(CHART), "--set", "admission.policies=never")
    assert refused.code != 0
    assert "unable to build kubernetes objects" in refused.err
    listed = await run("helm", "list", "--output", "json")
    assert json.loads(listed.out) == [], listed.err
    assert (await run("kubectl", "get", "crd", "plugins.crucible.dev")).code != 0
