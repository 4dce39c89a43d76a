"""The plugin's own key-value store: what ``capabilities.store`` grants. It outlives instances and updates."""

from __future__ import annotations

from crucible_plugin.errors import NotFound
from crucible_plugin.payloads import from_bytes, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from crucible_plugin.calls import Stream
    from crucible_plugin.wire import Frame

    Ask = Callable[[str, dict[str, str], bytes], Frame]


class Entry:
    """What is stored under a key.

    Attributes:
        value: decoded; bytes where ``raw`` was asked for.
        revision: of this value; ``put`` and ``delete`` take it to replace no other.
    """

    __slots__ = ("revision", "value")

    def __init__(self, value: Any, revision: int) -> None:  # noqa: ANN401
        self.value = value
        self.revision = revision


class Change:
    """What happened to a key.

    Attributes:
        key: which.
        deleted: it is gone; else ``value`` is there.
        value: decoded; None when deleted.
        revision: of the change.
    """

    __slots__ = ("deleted", "key", "revision", "value")

    def __init__(self, frame: Frame) -> None:
        self.key = frame.headers["key"]
        self.revision = int(frame.headers["revision"])
        self.deleted = frame.headers["op"] == "delete"
        self.value = None if self.deleted else from_bytes(frame.payload)


class Store:
    """Reads and writes. Keys are of ``A-Z a-z 0-9 . _ - / =``, 255 at most."""

    def __init__(self, ask: Ask, open_stream: Callable[[str, dict[str, str]], Stream]) -> None:
        self._ask = ask
        self._open = open_stream

    def get(self, key: str, default: Any = None, *, raw: bool = False) -> Any:  # noqa: ANN401
        """Return a value; the default when there is none."""
        try:
            return self.read(key, raw=raw).value
        except NotFound:
            return default

    def read(self, key: str, *, raw: bool = False) -> Entry:
        """Return a value and its revision.

        Raises:
            NotFound: there is none.
        """
        frame = self._ask("$store.get", {"key": key}, b"")
        value = frame.payload if raw else from_bytes(frame.payload)
        return Entry(value, int(frame.headers["revision"]))

    def put(self, key: str, value: object, revision: int | None = None) -> int:
        """Store a value and return its revision.

        Args:
            key: under which.
            value: bytes as they are, else JSON.
            revision: replace only this one; 0: only if there is none.

        Raises:
            Conflict: another revision is there.
            StoreFull: the size that is granted is used up.
        """
        frame = self._ask("$store.put", which(key, revision), to_bytes(value))
        return int(frame.headers["revision"])

    def delete(self, key: str, revision: int | None = None) -> None:
        """Delete a value; of that revision only, where one is given.

        Raises:
            NotFound: there is none.
            Conflict: another revision is there.
        """
        self._ask("$store.delete", which(key, revision), b"")

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield all keys that begin so, sorted."""
        after = ""
        while True:
            said = {name: text for name, text in (("prefix", prefix), ("after", after)) if text}
            page = from_bytes(self._ask("$store.list", said, b"").payload)
            for entry in page["keys"]:
                after = entry["key"]
                yield after
            if not page["more"]:
                return

    def watch(self, prefix: str = "") -> Iterator[Change]:
        """Yield what changes from now on, for ever."""
        return _changes(self._open("$store.watch", {"prefix": prefix} if prefix else {}))


def _changes(opened: Stream) -> Iterator[Change]:
    with opened as stream:
        while (frame := stream.next_frame()) is not None:
            yield Change(frame)


def which(key: str, revision: int | None) -> dict[str, str]:
    """Return the headers that name a key, and the revision it should have."""
    return {"key": key} if revision is None else {"key": key, "revision": str(revision)}
