"""Revisions as objects of an API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from build import DIGEST, identity, plugin

from crucible.control.revisions import ApiRevisions
from crucible.core.admission import admit
from crucible.errors import Conflict, NotFound
from crucible.model.revision import Revision
from crucible.model.status import SourceReport

if TYPE_CHECKING:
    from collections.abc import Mapping

PATH = "/apis/crucible.dev/v1alpha1/namespaces/default/pluginrevisions"
REVISION = Revision("echo-1", "1", admit(plugin()), SourceReport(digest=DIGEST, resolved_for="inline"))


class Server:
    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}

    async def get(self, path: str) -> dict[str, Any]:
        if path not in self.objects:
            raise NotFound(path)
        return self.objects[path]

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        name = f"{path}/{body['metadata']['name']}"
        if name in self.objects:
            raise Conflict(name)
        self.objects[name] = dict(body)
        return self.objects[name]

    async def delete(self, path: str) -> dict[str, Any]:
        return self.objects.pop(path) if path in self.objects else await self.get(path)


async def test_what_is_remembered_is_recalled_until_it_is_forgotten() -> None:
    server = Server()
    revisions = ApiRevisions(server)
    for _ in range(2):
        await revisions.remember(identity(), REVISION)
    assert await revisions.recall(identity(), "echo-1") == REVISION
    for _ in range(2):
        await revisions.forget(identity(), "echo-1")
    assert await revisions.recall(identity(), "echo-1") is None


async def test_what_an_earlier_plugin_of_the_name_left_is_replaced_and_never_run() -> None:
    server = Server()
    revisions = ApiRevisions(server)
    await revisions.remember(identity(uid="earlier"), REVISION)
    assert await revisions.recall(identity(), "echo-1") is None
    await revisions.remember(identity(), REVISION)
    assert await revisions.recall(identity(), "echo-1") == REVISION


async def test_one_that_somebody_mangled_is_of_no_use() -> None:
    server = Server()
    revisions = ApiRevisions(server)
    await revisions.remember(identity(), REVISION)
    for spec in ({}, {"manifest": "[]", "revision": "1", "source": {}}, {"manifest": 1, "revision": "1"}):
        server.objects[f"{PATH}/echo-1"]["spec"] = spec
        assert await revisions.recall(identity(), "echo-1") is None
