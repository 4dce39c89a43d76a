"""Follows the body of a forwarded request, so that not a byte goes on after its end. Pure."""

from __future__ import annotations

import re
from typing import Final

from crucible.egress.heads import Malformed

_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,15}")
_SIZE_LINE_MOST: Final = 18


class Body:
    """Where in a body we are: one of a known length, or one in chunks, without extensions and trailers."""

    def __init__(self, length: int | None) -> None:
        """Begin before its first byte.

        Args:
            length: in bytes; None for one in chunks.
        """
        self.ended = length == 0
        self._chunked = length is None
        self._left = length or 0
        self._line = b""
        self._last = False

    def feed(self, data: bytes) -> bytes:
        """Return how much of what came belongs to the body; the rest is nobody's.

        Raises:
            Malformed: it is not framed as it should be.
        """
        if not self._chunked:
            taken = data[: self._left]
            self._left -= len(taken)
            self.ended = self._left == 0
            return taken
        at = 0
        while at < len(data) and not self.ended:
            at = self._pass(data, at) if self._left else self._read_line(data, at)
        return data[:at]

    def _pass(self, data: bytes, at: int) -> int:
        step = min(self._left, len(data) - at)
        self._left -= step
        return at + step

    def _read_line(self, data: bytes, at: int) -> int:
        """Take bytes up to the end of a line, and heed it."""
        end = data.find(b"\n", at)
        upto = len(data) if end < 0 else end + 1
        self._line += data[at : min(upto, at + _SIZE_LINE_MOST)]
        if end >= 0:
            self._heed(self._line)
            self._line = b""
        elif len(self._line) >= _SIZE_LINE_MOST:
            raise Malformed("a chunk's size cannot be read")
        return upto

    def _heed(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            raise Malformed("a chunk's size cannot be read")
        words = line[:-2]
        if self._last:
            if words:
                raise Malformed("trailers are not passed on")
            self.ended = True
            return
        if _SIZE.fullmatch(words) is None:
            raise Malformed("a chunk's size cannot be read")
        size = int(words, 16)
        self._last = size == 0
        self._left = size + 2 if size else 0  # its own line end counts with it
