"""The calling module's memory, read and written within its bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from wasmtime import Memory, Trap

from .wire import Failure

if TYPE_CHECKING:
    from wasmtime import Caller

_UNSIGNED: Final = 0xFFFFFFFF


class Within:
    """Pieces of a memory: where each begins, and how long it is."""

    def __init__(self, caller: Caller) -> None:
        memory = caller.get("memory")
        if not isinstance(memory, Memory):
            raise Trap("the module exports no memory")
        self._caller = caller
        self._memory = memory

    def piece(self, at: int, size: int) -> bytes:
        """Return the bytes of a piece."""
        at, size = self._inside(at, size)
        return bytes(self._memory.read(self._caller, at, at + size))

    def text(self, at: int, size: int) -> str:
        """Return a piece as text.

        Raises:
            Failure: it is not UTF-8.
        """
        try:
            return self.piece(at, size).decode()
        except UnicodeDecodeError:
            raise Failure("Malformed", "not UTF-8") from None

    def put(self, data: bytes, at: int, size: int) -> int:
        """Copy as much as fits into a piece; return how long the data is."""
        at, size = self._inside(at, size)
        self._memory.write(self._caller, data[:size], at)
        return len(data)

    def _inside(self, at: int, size: int) -> tuple[int, int]:
        at, size = at & _UNSIGNED, size & _UNSIGNED
        if at + size > self._memory.data_len(self._caller):
            raise Trap("what a function of crucible was given lies outside of the memory")
        return at, size
