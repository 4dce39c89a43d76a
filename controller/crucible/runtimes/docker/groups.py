"""The cgroups of containers on this host, found once and then known by their shape.

Reading the kernel's own files costs a hundredth of what asking the engine does. An engine elsewhere, or whose
groups are not to be seen from here, has none.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.runtimes.gauge import Gauge

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path("/sys/fs/cgroup")
_DEEPEST: Final = 6
_INIT: Final = 1
"""The engine's own process in each container: its init."""
_SEARCHES: Final = 8
"""So often a container's groups are searched for in vain: one that has just ended proves nothing."""
_OVER: Final = ("memory.events", "memory.oom_control")


class Groups:
    """The open gauges of one engine's containers."""

    def __init__(self, url: str, root: Path = ROOT) -> None:
        """Look for groups below ``root`` where the engine's address is a socket of this host."""
        self._root = root
        self._searches = _SEARCHES if url.startswith("unix://") else 0
        self._shapes: tuple[str, ...] = ()
        """Where groups were found, with the container's id left out."""
        self._gauges: dict[str, Gauge] = {}

    def gauge(self, container: str) -> Gauge | None:
        """Return the gauge of a container; None where its groups cannot be seen."""
        if container not in self._gauges:
            directories = self._find(container)
            if directories:
                self._gauges[container] = Gauge(directories, _INIT)
        return self._gauges.get(container)

    def first(self, container: str) -> int | None:
        """Return a pidfd of a container's first process, for the caller to close; None where none is seen."""
        place = next(self._places(container), None) or next(
            map(str, self._search(container, proves=False)), None
        )
        if place is None:
            return None
        processes = f"{place}/cgroup.procs"
        with contextlib.suppress(OSError):
            for pid in filter(_begins_a_namespace, _text(processes).split()):
                held = os.pidfd_open(int(pid))
                if pid in _text(processes).split():
                    return held  # it was held while it was in the group: nobody else has its number
                os.close(held)
        return None

    def over_memory(self, container: str) -> bool | None:
        """Whether the kernel killed something in a container for memory; None where that cannot be read."""
        for directory in self._known(container):
            for name in _OVER:
                with contextlib.suppress(OSError, ValueError, LookupError):
                    table = dict(line.split()[:2] for line in (directory / name).read_text().splitlines())
                    return int(table["oom_kill"]) > 0
        return None

    def drop(self, container: str) -> None:
        """Close the gauge of a container."""
        gauge = self._gauges.pop(container, None)
        if gauge is not None:
            gauge.close()

    def close(self) -> None:
        """Close all."""
        for container in tuple(self._gauges):
            self.drop(container)

    def _find(self, container: str) -> tuple[Path, ...]:
        return tuple(self._known(container)) or self._search(container)

    def _known(self, container: str) -> Iterator[Path]:
        """Yield the directories at the places where another container's were."""
        yield from map(Path, self._places(container))

    def _places(self, container: str) -> Iterator[str]:
        for shape in self._shapes:
            place = shape.replace("{}", container)
            if os.path.isdir(place):  # noqa: PTH112 - asked for every start
                yield place

    def _search(self, container: str, *, proves: bool = True) -> tuple[Path, ...]:
        """Search the whole tree; where nothing is found again and again, there is nothing to be seen.

        Args:
            container: whose groups.
            proves: it ran just now: one that may have ended as soon as it began proves nothing.
        """
        if not self._searches:
            return ()
        found = tuple(sorted(self._walk(container)))
        if not found:
            self._searches -= proves
            return ()
        self._searches = _SEARCHES
        self._shapes = tuple(str(path).replace(container, "{}") for path in found)
        return found

    def _walk(self, container: str) -> Iterator[Path]:
        names = {container, f"docker-{container}.scope"}
        for directory, below, _ in os.walk(self._root):
            place = Path(directory)
            for name in names.intersection(below):
                yield place / name
            if len(place.relative_to(self._root).parts) >= _DEEPEST:
                below.clear()


def _begins_a_namespace(pid: bytes) -> bool:
    """Whether a process is the first of a pid namespace, and so takes all others of it with it."""
    with contextlib.suppress(OSError):  # it is gone, or not to be seen from here
        _, _, after = _text(f"/proc/{int(pid)}/status").partition(b"\nNSpid:")
        numbers = after.partition(b"\n")[0].split()
        return len(numbers) > 1 and numbers[-1] == b"1"
    return False


def _text(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - read once, for every start
        return file.read()
