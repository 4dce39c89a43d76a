"""The ends of containers on this host, from the kernel: it tells before the engine, which clears away first.

With the first process of a container all others of its pid namespace are gone. How it ended the kernel
tells whoever holds a pidfd of it, since Linux 6.15; elsewhere the engine is waited for, as for an end that is
not told in full here: a program that was not found, a kill of which the kernel's reason cannot be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crucible.runtimes.docker.held import may_be_init

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.runtimes.docker.groups import Groups

_INFO: Final = struct.Struct("=Q52xi")
"""``struct pidfd_info`` of Linux: a mask of what is asked and told, and at its end the wait status."""
_EXIT: Final = 1 << 3
_GET_INFO: Final = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11
_SIGNALLED: Final = 128
_PAUSES: Final = (0.0005, 0.001, 0.002, 0.004, 0.008)
"""Seconds between the end of a process and its parent's taking note of it, when the kernel begins to tell."""


@dataclass(frozen=True, slots=True)
class Death:
    """How a container ended.

    Attributes:
        code: its exit status, as the engine would put it.
        oom: the kernel killed something in it for memory.
    """

    code: int
    oom: bool


class Deaths:
    """Watches the first processes of containers, in the event loop."""

    def __init__(self, groups: Groups, died: Callable[[str, Death], None]) -> None:
        """Watch nothing yet.

        Args:
            groups: where containers' processes are found.
            died: called with a container whose end is told in full.
        """
        self._groups = groups
        self._died = died
        self._watched: dict[str, int] = {}
        self._told = True

    def watch(self, container: str) -> None:
        """Begin to watch a container that runs, where that can be done."""
        if not self._told or container in self._watched:
            return
        first = self._groups.first(container)
        if first is None:
            return
        try:
            _status(first)
        except OSError:  # this kernel tells nothing
            self._told = False
            os.close(first)
            return
        self._watched[container] = first
        asyncio.get_running_loop().add_reader(first, self._ended, container, first)

    def forget(self, container: str) -> None:
        """Watch a container no more."""
        first = self._watched.pop(container, None)
        if first is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and watches nothing
                asyncio.get_running_loop().remove_reader(first)
            os.close(first)

    def close(self) -> None:
        """Watch nothing more."""
        for container in tuple(self._watched):
            self.forget(container)

    def _ended(self, container: str, first: int, tries: int = 0) -> None:
        """Say how it ended, once the kernel does."""
        if self._watched.get(container) != first:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(first)
        status = _status(first)
        if status is None and tries < len(_PAUSES):
            loop.call_later(_PAUSES[tries], self._ended, container, first, tries + 1)
            return
        self.forget(container)
        if status is None:
            return
        code = os.waitstatus_to_exitcode(status)
        code = code if code >= 0 else _SIGNALLED - code
        oom = self._groups.over_memory(container)
        unsure = oom is None and code == _SIGNALLED + signal.SIGKILL
        if not unsure and not may_be_init(code):
            self._died(container, Death(code, bool(oom)))


def _status(pidfd: int) -> int | None:
    """Return a process' wait status; None while its parent has not taken note, or where none is told.

    Raises:
        OSError: this kernel does not know the question.
    """
    told = bytearray(_INFO.pack(_EXIT, 0))
    try:
        fcntl.ioctl(pidfd, _GET_INFO, told)
    except ProcessLookupError:  # it is gone, and nothing was kept of it
        return None
    mask, status = _INFO.unpack(told)
    return int(status) if mask & _EXIT else None
