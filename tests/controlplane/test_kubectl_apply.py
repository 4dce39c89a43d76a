"""kubectl beside folders that are kept applied: how it reads YAML, and that it knows whose a set is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from probe import CONFIGMAPS, configmap

from crucible.control.client import Client
from crucible.control.kubeconfig import load_endpoint
from crucible.manifests.parent import ID, NAMESPACE, TOOLING, parent_of
from crucible.manifests.upkeep import Upkeep
from crucible.model.crd import plugin_crd

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Tool
    from probe import Probe

    from crucible.control.apiserver import ApiServer


@pytest.fixture
def crd() -> dict[str, Any]:
    return plugin_crd()


APPLY_SET = {"KUBECTL_APPLYSET": "true"}


async def keep(server: ApiServer, folder: Path, *documents: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Keep a folder applied for one turn; return where its set's parent is, and its metadata."""
    folder.mkdir(exist_ok=True)
    (folder / "a.yaml").write_text(yaml.safe_dump_all(documents))
    async with Client(load_endpoint(server.kubeconfig)) as client:
        assert await Upkeep(folder, client).turn()
        path, _ = parent_of(folder, ())
        return path, (await client.get(path))["metadata"]


async def test_a_kept_folder_is_a_set_that_kubectl_leaves_to_its_owner(
    kubectl: Tool, server: ApiServer, probe: Probe, tmp_path: Path
) -> None:
    _, meta = await keep(server, tmp_path / "m", configmap("a"), configmap("b"))
    found = await kubectl.ok("get", "configmaps", "-n", NAMESPACE, "-l", ID, "-o", "name")
    assert found.split() == [f"configmap/{meta['name']}"]
    members = await kubectl.ok(
        *("get", "configmaps", "-A", "-o", "name"),
        *("-l", f"applyset.kubernetes.io/part-of={meta['labels'][ID]}"),
    )
    assert members.split() == ["configmap/a", "configmap/b"]
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(configmap("c")))
    prune = ("apply", "-f", str(tmp_path / "one.yaml"), "--prune", "-n", NAMESPACE)
    refused = await kubectl.run(*prune, f"--applyset=configmaps/{meta['name']}", **APPLY_SET)
    assert 'is managed by tooling "crucible" instead of "kubectl"' in refused.err
    assert (await probe.get(CONFIGMAPS)).names == ["a", "b"]


async def test_kubectl_reads_all_of_a_sets_parent_once_it_is_its_own(
    kubectl: Tool, server: ApiServer, probe: Probe, tmp_path: Path
) -> None:
    path, meta = await keep(server, tmp_path / "m", configmap("a"), configmap("b"))
    await probe.patch(path, {"metadata": {"annotations": {TOOLING: "kubectl/v1.36.0"}}})
    kept = {**configmap("c"), "metadata": {"name": "c", "namespace": NAMESPACE}}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(kept))
    prune = ("apply", "-f", str(tmp_path / "one.yaml"), "--prune", "-n", NAMESPACE)
    said = await kubectl.ok(*prune, f"--applyset=configmaps/{meta['name']}", **APPLY_SET)
    assert {"configmap/a pruned", "configmap/b pruned"} <= set(said.splitlines())


async def test_kubectl_keeps_sets_of_its_own(kubectl: Tool, probe: Probe, tmp_path: Path) -> None:
    prune = ("apply", "-f", str(tmp_path / "all.yaml"), "--prune", "--applyset=mine", "-n", "default")
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all([configmap("a"), configmap("b")]))
    await kubectl.ok(*prune, **APPLY_SET)
    (tmp_path / "all.yaml").write_text(yaml.safe_dump(configmap("a")))
    assert "configmap/b pruned" in await kubectl.ok(*prune, **APPLY_SET)
    assert (await probe.get(CONFIGMAPS)).names == ["a"]
