"""What this runtime asks of a client of the cluster's API server: dicts in, dicts out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager

JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"


class Cluster(Protocol):
    """Talks to one API server. Every verb raises ``CrucibleError`` as the server's answer says."""

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Read one object or a list."""
        ...

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object in a collection."""
        ...

    async def patch(self, path: str, body: object, kind: str = MERGE_PATCH) -> dict[str, Any]:
        """Change part of an object."""
        ...

    async def end(self, path: str, uid: str, grace: int | None = None) -> dict[str, Any]:
        """Delete that very object; ``grace`` is in seconds, None for the object's own."""
        ...

    def watch(
        self, path: str, params: Mapping[str, str]
    ) -> AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]]:
        """Watch a collection; entered once the server agreed to tell.

        A version that the server has forgotten comes as an event of type ``ERROR`` with code 410.
        """
        ...

    def lines(
        self, path: str, params: Mapping[str, str]
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Read an answer line by line, without the lines' ends, for as long as it comes."""
        ...
