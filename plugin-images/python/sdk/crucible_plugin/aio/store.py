"""The plugin's own key-value store, for asyncio."""

from __future__ import annotations

from crucible_plugin.errors import NotFound
from crucible_plugin.payloads import from_bytes, to_bytes
from crucible_plugin.store import Change, Entry, which

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import Any

    from crucible_plugin.aio.flow import Stream
    from crucible_plugin.wire import Frame


class Store:
    """Reads and writes, as ``crucible_plugin.store.Store`` does; its words hold here."""

    def __init__(
        self,
        ask: Callable[[str, dict[str, str], bytes], Awaitable[Frame]],
        open_stream: Callable[[str, dict[str, str]], Awaitable[Stream]],
    ) -> None:
        self._ask = ask
        self._open = open_stream

    async def get(self, key: str, default: Any = None, *, raw: bool = False) -> Any:  # noqa: ANN401
        """Return a value; the default when there is none."""
        try:
            return (await self.read(key, raw=raw)).value
        except NotFound:
            return default

    async def read(self, key: str, *, raw: bool = False) -> Entry:
        """Return a value and its revision; NotFound where there is none."""
        frame = await self._ask("$store.get", {"key": key}, b"")
        value = frame.payload if raw else from_bytes(frame.payload)
        return Entry(value, int(frame.headers["revision"]))

    async def put(self, key: str, value: object, revision: int | None = None) -> int:
        """Store a value and return its revision."""
        frame = await self._ask("$store.put", which(key, revision), to_bytes(value))
        return int(frame.headers["revision"])

    async def delete(self, key: str, revision: int | None = None) -> None:
        """Delete a value; of that revision only, where one is given."""
        await self._ask("$store.delete", which(key, revision), b"")

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield all keys that begin so, sorted."""
        after = ""
        while True:
            said = {name: text for name, text in (("prefix", prefix), ("after", after)) if text}
            page = from_bytes((await self._ask("$store.list", said, b"")).payload)
            for entry in page["keys"]:
                after = entry["key"]
                yield after
            if not page["more"]:
                return

    async def watch(self, prefix: str = "") -> AsyncIterator[Change]:
        """Yield what changes from the first asking on, for ever."""
        async with await self._open("$store.watch", {"prefix": prefix} if prefix else {}) as stream:
            while (frame := await stream.next_frame()) is not None:
                yield Change(frame)
