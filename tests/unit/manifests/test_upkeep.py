"""The coroutine that keeps a folder applied, against a control plane that fails now and then."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import yaml

from crucible.errors import InvalidManifest, Unavailable, Violation
from crucible.manifests.parent import NAMESPACES
from crucible.manifests.upkeep import Rhythm, Upkeep, keep_applied

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import pytest

QUICK = Rhythm(look=0.01, settle=0.005, patience=0.05, again=0.05, share=1.0)


class FakeClient:
    """Keeps ConfigMaps; refuses names it is told to, and answers nothing while it is down."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.refuses = ""
        self.down = False
        self.parents: list[str] = []
        self._version = 0

    def _answer(self) -> None:
        if self.down:
            raise Unavailable("does not answer")

    async def get(self, path: str, params: Mapping[str, str]) -> dict[str, Any]:
        self._answer()
        assert params["labelSelector"].startswith("applyset.kubernetes.io/part-of=applyset-")
        return {"items": list(self.objects.values()) if path.endswith("configmaps") else []}

    async def apply(self, path: str, body: dict[str, Any], manager: str) -> tuple[bool, dict[str, Any]]:
        self._answer()
        assert manager == "crucible-manifests"
        if body["metadata"]["namespace"] == "kube-system":
            self.parents.append(body["metadata"]["annotations"].get(NAMESPACES, ""))
            return False, body
        if body["metadata"]["name"] == self.refuses:
            raise InvalidManifest((Violation("data.k", "is wrong"),))
        created = path not in self.objects
        self._version += 1
        meta = {**body["metadata"], "uid": path, "resourceVersion": str(self._version)}
        self.objects[path] = {**body, "metadata": meta}
        return created, self.objects[path]

    async def delete(self, path: str, uid: str) -> dict[str, Any]:
        self._answer()
        assert self.objects[path]["metadata"]["uid"] == uid
        return self.objects.pop(path)

    @property
    def data(self) -> dict[str, Any]:
        return {each["metadata"]["name"]: each["data"] for each in self.objects.values()}


def write(path: Path, **maps: dict[str, str]) -> None:
    documents = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        for name, data in maps.items()
    ]
    path.write_text(yaml.safe_dump_all(documents))


async def eventually(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not so():
            await asyncio.sleep(0.01)


async def test_a_folder_stays_applied_through_changes_drift_and_hiccups(tmp_path: Path) -> None:
    client: Any = FakeClient()
    write(tmp_path / "a.yaml", x={"k": "1"}, z={})
    task = asyncio.create_task(keep_applied(tmp_path, client, QUICK))
    try:
        await eventually(lambda: client.data == {"x": {"k": "1"}, "z": {}})
        client.down = True
        write(tmp_path / "a.yaml", x={"k": "2"})
        await asyncio.sleep(0.05)
        client.down = False
        await eventually(lambda: client.data == {"x": {"k": "2"}})
        client.objects.clear()
        await eventually(lambda: client.data == {"x": {"k": "2"}})
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_done_and_refused_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client: Any = FakeClient()
    client.refuses = "bad"
    write(tmp_path / "a.yaml", bad={}, good={})
    (tmp_path / "b.yaml").write_text("kind: [")
    upkeep = Upkeep(tmp_path, client)
    caplog.set_level(logging.INFO)
    assert not await upkeep.turn()
    assert not await upkeep.turn()
    said = [record.getMessage() for record in caplog.records]
    assert f"refused: {tmp_path}/a.yaml:1: configmap/bad: data.k: is wrong" in said
    assert f"{tmp_path}/a.yaml:7: configmap/good created" in said
    assert len([line for line in said if line.startswith(f"refused: {tmp_path}/b.yaml:")]) == 1
    assert len(said) == 3
    client.refuses = ""
    (tmp_path / "b.yaml").unlink()
    assert await upkeep.turn()
    assert caplog.records[-1].getMessage() == f"{tmp_path}: nothing is refused any more"


async def test_a_folder_that_cannot_be_read_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client: Any = FakeClient()
    folder = tmp_path / "m"
    folder.mkdir()
    write(folder / "a.yaml", x={})
    upkeep = Upkeep(folder, client)
    assert await upkeep.turn()
    folder.rename(tmp_path / "elsewhere")
    assert not await upkeep.turn()
    assert client.data == {"x": {}}
    assert f"{folder}: cannot be read: No such file or directory; nothing is changed" in caplog.text


async def test_an_emptied_folder_removes_nothing_until_that_is_said_to_be_meant(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client: Any = FakeClient()
    write(tmp_path / "a.yaml", x={}, z={})
    upkeep = Upkeep(tmp_path, client)
    await upkeep.turn()
    (tmp_path / "a.yaml").unlink()
    for each in (upkeep, Upkeep(tmp_path, client)):
        assert not await each.turn()
        assert client.data == {"x": {}, "z": {}}
    assert f"its 2 objects stay. If they shall go, say so: touch {tmp_path}/.empty-on-purpose" in caplog.text
    (tmp_path / ".empty-on-purpose").touch()
    assert await upkeep.turn()
    assert client.data == {}


async def test_the_last_manifest_but_one_may_go_without_a_word(tmp_path: Path) -> None:
    client: Any = FakeClient()
    write(tmp_path / "a.yaml", x={})
    write(tmp_path / "b.yaml", z={})
    upkeep = Upkeep(tmp_path, client)
    await upkeep.turn()
    (tmp_path / "a.yaml").unlink()
    assert await upkeep.turn()
    assert client.data == {"z": {}}


async def test_the_sets_parent_names_every_namespace_before_anything_is_in_it(tmp_path: Path) -> None:
    client: Any = FakeClient()
    upkeep = Upkeep(tmp_path, client)
    await upkeep.turn()
    assert client.parents == [], "a folder that never held anything is no set"
    write(tmp_path / "a.yaml", x={})
    client.down = True
    assert not await upkeep.turn()
    client.down = False
    assert await upkeep.turn()
    assert client.parents == ["default"]
