"""The words of an HTTP probe: a request, and the first line of an answer. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from crucible.model.probe import HttpProbe

_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r\n]")


@lru_cache(maxsize=1024)
def request_of(probe: HttpProbe) -> bytes:
    """Return the request of a probe. Its path holds printable characters only, so it cannot add a line."""
    return (
        f"GET {probe.path} HTTP/1.1\r\nHost: localhost:{probe.port}\r\n"
        "User-Agent: crucible-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    ).encode("ascii")


def status_of(head: bytes) -> int | None:
    """Return the status in an answer's first line; None where that is none."""
    found = _STATUS.match(head)
    return int(found[1]) if found else None
