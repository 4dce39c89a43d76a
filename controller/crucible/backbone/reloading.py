"""Has a NATS server read its certificates anew when they have changed: by itself it does not."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.backbone.mounted import papers_in
from crucible.errors import InvalidInput

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from crucible.backbone.mounted import Papers

LOOK: Final = 10.0
"""Seconds between two looks."""

log = logging.getLogger(__name__)


def watch(folder: Path, server: Callable[[], list[int]], stop: threading.Event) -> None:
    """Tell a server whenever the files of a folder are others, until stopped; no connection of it ends.

    Args:
        folder: with ``ca.crt``, ``tls.crt`` and ``tls.key``.
        server: returns its process, if there is one. It is told at the beginning too: what changed before
            we looked for the first time is not known.
        stop: ends it.
    """
    told = problem = ""
    while not stop.wait(LOOK):  # a server that has just begun could be ended by it
        try:
            found = _digest(papers_in(folder))
        except InvalidInput as error:
            if str(error) != problem:
                log.warning("the server goes on with its last certificates: %s", error)
            problem = str(error)
        else:
            problem = ""
            if found != told and [pid for pid in server() if tell(pid)]:
                told = found
                log.info("the server was told to read its certificates")


def tell(pid: int) -> bool:
    """Send SIGHUP to a process; say whether there is one."""
    try:
        os.kill(pid, signal.SIGHUP)
    except ProcessLookupError:
        return False
    return True


def called(program: str) -> list[int]:
    """Return the processes that are called so, as far as they can be seen: those of one pod."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if (entry / "comm").read_text().strip() == program:
                    found.append(int(entry.name))
    return found


def _digest(papers: Papers) -> str:
    """Return what is another whenever a file is; the key is not kept."""
    shown = papers.shown
    return hashlib.sha256(f"{papers.authority}{shown.certificate}{shown.key}".encode()).hexdigest()
