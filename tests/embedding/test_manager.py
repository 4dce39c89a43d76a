"""A program of one's own that runs plugins: the page's example as it stands, and what it leaves out."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crucible.bus.host import CallFailed
from crucible.errors import InvalidManifest, NotFound
from crucible.manager import PluginManager
from crucible.settings import Places
from crucible.standing import PluginState
from crucible.teardown import end_all

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/embedding.md"
EXAMPLE = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="plugins start with every control enforced only where root runs the controller"
)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """Return a state folder; end what was made from it."""
    yield tmp_path / "state"
    end_all(Places(tmp_path / "state"), 5.0, print)


def manifest(name: str, program: str, **spec: Any) -> dict[str, Any]:
    return {
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


@needs_root
async def test_the_example_of_the_page_works_as_it_stands(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world: dict[str, Any] = {"__name__": "example"}
    exec(compile(EXAMPLE, str(PAGE), "exec"), world)  # noqa: S102 - our own page
    assert await world["main"](str(state)) == ["to", "be"]
    told = capsys.readouterr().out
    assert told.startswith("Running ('")
    assert "subject='words.split', sender='tokenizer', payload=2" in told
    assert "dev.crucible.plugin." in told


@needs_root
async def test_plugins_are_stopped_started_restarted_and_outlive_the_program(
    state: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with PluginManager(state=state) as manager:
        assert "OS signals" not in capfd.readouterr().err
        (made,) = await manager.apply(
            manifest("demo", "print('up', flush=True)\nimport time\ntime.sleep(1e6)")
        )
        assert not made.ready
        first = await manager.wait("demo")
        assert (first.ready, first.phase, len(first.instances)) == (True, "Running", 1)
        await manager.restart("demo")
        second = await manager.wait("demo", lambda one: one.ready and one.instances != first.instances)
        (text,) = (await manager.logs("demo")).values()
        assert text == "up\n"
        await manager.stop("demo")
        await manager.wait("demo", lambda one: one.phase == "Suspended")
        await manager.start("demo")
        third = await manager.wait("demo")
        assert third.instances != second.instances
        async with PluginManager(state=state) as other:  # the one that runs is used
            assert [one.name for one in await other.plugins()] == ["demo"]
        await manager.freeze("demo")
        await manager.wait("demo", lambda one: one.phase == "Frozen")
    async with PluginManager(state=state) as manager:
        still = await manager.wait("demo", lambda one: one.phase == "Frozen")
        assert not still.ready
        await manager.thaw("demo")
        adopted = await manager.wait("demo")
        assert adopted.instances == third.instances, "it was started anew"
        with pytest.raises(CallFailed, match=r"spec\.capabilities\.bus"):
            await manager.call("demo.anything")
        with pytest.raises(NotFound):
            await manager.call("nobody.anything")
        await manager.delete("demo")
        with pytest.raises(NotFound):
            await manager.get("demo")


async def test_what_is_wrong_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(json.dumps(manifest("good", "")))
    manager = PluginManager(state=tmp_path / "state")
    assert [one["metadata"]["name"] for one in manager.discover(tmp_path)] == ["good"]
    (tmp_path / "bad.yaml").write_text(json.dumps(manifest("bad", "", typ="python")))
    with pytest.raises(InvalidManifest, match="typ"):
        manager.discover(tmp_path)
    with pytest.raises(InvalidManifest, match="replicas"):
        await manager.apply(manifest("bad", "", replicas=-1))
    with pytest.raises(NotFound, match="no such file"):
        manager.discover(tmp_path / "nothing")


async def test_a_kubeconfig_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    manager = PluginManager(kubeconfig=tmp_path / "config")
    with pytest.raises(NotFound, match="no kubeconfig"):
        await manager.call("demo.method")


def test_a_plugin_is_ready_only_as_it_was_last_asked_to() -> None:
    def condition(kind: str, holds: str, **more: str) -> dict[str, str]:
        return {"type": kind, "status": holds, "reason": kind, "message": f"{kind} is {holds}", **more}

    plugin: dict[str, Any] = {
        "metadata": {"name": "a", "namespace": "b", "generation": 2},
        "status": {
            "phase": "Running",
            "observedGeneration": 2,
            "conditions": [condition("Ready", "True"), condition("Reconciling", "False")],
            "instances": [{"name": "a-0-1", "restarts": 2}, {"restarts": 1}],
        },
    }
    seen = PluginState.of(plugin)
    assert (seen.ready, seen.message, seen.instances, seen.restarts) == (True, "Ready is True", ("a-0-1",), 3)
    plugin["metadata"]["generation"] = 3
    assert not PluginState.of(plugin).ready
    plugin["metadata"]["generation"] = 2
    plugin["status"]["conditions"][1] = condition("Reconciling", "True")
    assert not PluginState.of(plugin).ready
    plugin["status"]["conditions"].append(condition("Stalled", "True"))
    assert PluginState.of(plugin).message == "Stalled is True"
    assert PluginState.of({"metadata": plugin["metadata"]}).phase == "Pending"
