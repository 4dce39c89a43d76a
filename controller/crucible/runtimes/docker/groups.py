"""The cgroups of containers on this host, found once and then known by their shape.

Reading the kernel's own files costs a hundredth of what asking the engine does. An engine elsewhere, or whose
groups are not to be seen from here, has none.
"""

from __future__ import annotations

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


class Groups:
    """The open gauges of one engine's containers."""

    def __init__(self, url: str, root: Path = ROOT) -> None:
        """Look for groups below ``root`` where the engine's address is a socket of this host."""
        self._root = root
        self._here = url.startswith("unix://")
        self._shapes: tuple[tuple[str, str], ...] = ()
        self._gauges: dict[str, Gauge] = {}

    def gauge(self, container: str) -> Gauge | None:
        """Return the gauge of a container; None where its groups cannot be seen."""
        if container not in self._gauges and self._here:
            directories = self._known(container) or self._search(container)
            if directories:
                self._gauges[container] = Gauge(directories, _INIT)
        return self._gauges.get(container)

    def drop(self, container: str) -> None:
        """Close the gauge of a container."""
        gauge = self._gauges.pop(container, None)
        if gauge is not None:
            gauge.close()

    def close(self) -> None:
        """Close all."""
        for container in tuple(self._gauges):
            self.drop(container)

    def _known(self, container: str) -> tuple[Path, ...]:
        """Return the directories at the places where another container's were."""
        found = (self._root / parent / shape.format(container) for parent, shape in self._shapes)
        return tuple(path for path in found if path.is_dir())

    def _search(self, container: str) -> tuple[Path, ...]:
        """Search the whole tree, once for an engine: what is not found now never is."""
        found = tuple(sorted(self._walk(container)))
        self._here = bool(found)
        self._shapes = tuple(
            (str(path.parent.relative_to(self._root)), path.name.replace(container, "{}")) for path in found
        )
        return found

    def _walk(self, container: str) -> Iterator[Path]:
        names = {container, f"docker-{container}.scope"}
        for directory, below, _ in os.walk(self._root):
            place = Path(directory)
            for name in names.intersection(below):
                yield place / name
            if len(place.relative_to(self._root).parts) >= _DEEPEST:
                below.clear()
