"""Keeps revisions as objects of the API server."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from crucible.errors import Conflict, InvalidManifest, NotFound
from crucible.model import names
from crucible.model.revision import read_revision, revision_object

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from crucible.model.plugin import Identity
    from crucible.model.revision import Revision

log = logging.getLogger(__name__)


class Objects(Protocol):
    """The part of a client that is needed here."""

    async def get(self, path: str) -> dict[str, Any]:
        """Read one object."""
        ...

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object in a collection."""
        ...

    async def delete(self, path: str) -> dict[str, Any]:
        """Ask for an object's deletion."""
        ...


class ApiRevisions:
    """Keeps the contract of :class:`crucible.ports.Revisions`."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def remember(self, identity: Identity, revision: Revision) -> None:
        """Create the object; one of that name says the same, for the name holds the revision."""
        try:
            await self._objects.create(_collection(identity), revision_object(identity, revision))
        except Conflict:
            await self._replace(identity, revision)

    async def _replace(self, identity: Identity, revision: Revision) -> None:
        """Put ours in the place of what an earlier Plugin of the same name left."""
        if await self.recall(identity, revision.name) is None:
            await self.forget(identity, revision.name)
            await self._objects.create(_collection(identity), revision_object(identity, revision))

    async def recall(self, identity: Identity, name: str) -> Revision | None:
        """Read an object; one that is not there, or not ours, is none."""
        try:
            return read_revision(await self._objects.get(f"{_collection(identity)}/{name}"), identity.uid)
        except NotFound:
            return None
        except (InvalidManifest, ValueError, KeyError) as error:
            log.warning("%s/%s: revision %s is of no use: %s", identity.namespace, identity.name, name, error)
            return None

    async def forget(self, identity: Identity, name: str) -> None:
        """Delete an object."""
        try:
            await self._objects.delete(f"{_collection(identity)}/{name}")
        except NotFound:
            return


def _collection(identity: Identity) -> str:
    return f"/apis/{names.API_VERSION}/namespaces/{identity.namespace}/{names.REVISION_PLURAL}"
