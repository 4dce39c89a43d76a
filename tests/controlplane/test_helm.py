"""helm, as a real binary: a chart with a definition, a plugin, a Secret and a ConfigMap."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from commands import Tool
from probe import PLUGINS, SECRETS, Probe

from crucible.control.apiserver import ApiServer, ServerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PLUGIN = """
apiVersion: probe.dev/v1
kind: Plugin
metadata: {name: "{{ .Release.Name }}-plugin"}
spec: {image: "{{ .Values.image }}"}
"""
OTHERS = """
apiVersion: v1
kind: Secret
metadata: {name: "{{ .Release.Name }}-secret"}
stringData: {key: "{{ .Values.image }}"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}-config"}
data: {image: "{{ .Values.image }}"}
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    async with ApiServer(ServerSettings(state_dir=tmp_path / "state")) as running:
        yield running


@pytest.fixture
def helm(server: ApiServer, helm_path: Path, tmp_path: Path) -> Tool:
    return Tool(helm_path, server.kubeconfig, tmp_path)


@pytest.fixture
def chart(tmp_path: Path, crd: dict[str, Any]) -> str:
    folder = tmp_path / "chart"
    (folder / "crds").mkdir(parents=True)
    (folder / "templates").mkdir()
    (folder / "Chart.yaml").write_text("{apiVersion: v2, name: demo, version: 0.1.0}")
    (folder / "values.yaml").write_text("image: one")
    (folder / "crds" / "crd.yaml").write_text(yaml.safe_dump(crd))
    (folder / "templates" / "plugin.yaml").write_text(PLUGIN)
    (folder / "templates" / "others.yaml").write_text(OTHERS)
    return str(folder)


async def test_a_release_lives_its_whole_life(helm: Tool, chart: str, probe: Probe) -> None:
    await helm.ok("lint", chart)
    await helm.ok("install", "r", chart, "--wait", "--timeout=90s")
    assert (await probe.get(f"{PLUGINS}/r-plugin")).body["spec"]["image"] == "one"
    assert json.loads(await helm.ok("list", "-o", "json"))[0]["status"] == "deployed"
    assert "r-plugin" in await helm.ok("get", "manifest", "r")
    assert "STATUS: deployed" in await helm.ok("status", "r")
    assert "two" in await helm.ok("upgrade", "r", chart, "--set", "image=two", "--dry-run=server")
    assert (await probe.get(f"{PLUGINS}/r-plugin")).body["spec"]["image"] == "one"
    await helm.ok("upgrade", "r", chart, "--set", "image=two", "--wait", "--timeout=90s")
    assert (await probe.get(f"{PLUGINS}/r-plugin")).body["spec"]["image"] == "two"
    await helm.ok("rollback", "r", "1", "--wait", "--timeout=90s")
    assert (await probe.get(f"{PLUGINS}/r-plugin")).body["spec"]["image"] == "one"
    assert len(json.loads(await helm.ok("history", "r", "-o", "json"))) == 3
    await helm.ok("uninstall", "r", "--wait", "--timeout=90s")
    assert (await probe.get(f"{PLUGINS}/r-plugin")).code == 404
    assert (await probe.get(SECRETS)).body["items"] == []


async def test_upgrade_on_the_client_side(helm: Tool, chart: str, probe: Probe) -> None:
    await helm.ok("install", "c", chart, "--server-side=false")
    await helm.ok("upgrade", "c", chart, "--set", "image=two", "--server-side=false")
    assert (await probe.get(f"{PLUGINS}/c-plugin")).body["spec"]["image"] == "two"
