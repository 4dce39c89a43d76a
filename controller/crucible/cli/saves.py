"""Noticing that an author saved: batches of changed files, without what editors and tools leave around."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from watchfiles import Change, DefaultFilter, watch

from crucible.packages.folder import LEFT_OUT

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

_LOOK_AGAIN: Final = 0.3
"""Seconds between two looks for a folder that is gone."""
_MOST: Final = 20
"""Quiet times after which a batch is handed over although files still change."""
_NAMED: Final = 3


class _Saved(DefaultFilter):
    """Lets through what is part of a plugin."""

    ignore_dirs = (*LEFT_OUT, ".hg", ".svn", ".idea", ".mypy_cache", ".pytest_cache", ".hypothesis")
    ignore_entity_patterns = (*DefaultFilter.ignore_entity_patterns, r"^4913$", r"^#.*#$", r"\.kate-swp$")


@dataclass(frozen=True, slots=True)
class Folder:
    """What to watch.

    Attributes:
        root: the plugin's folder, absolute.
        manifest: its manifest, absolute; it may lie elsewhere.
        quiet: seconds for which no file may change before those that did are a batch.
    """

    root: Path
    manifest: Path
    quiet: float


class Saves:
    """Watches a plugin's folder, and its manifest where that lies elsewhere."""

    def __init__(self, folder: Folder) -> None:
        self._root = folder.root
        self._manifest = folder.manifest
        self._quiet = max(round(folder.quiet * 1000), 1)
        self._filter = _Saved()

    def watch(self, over: threading.Event) -> Iterator[tuple[str, ...]]:
        """Yield the names of changed files, a batch at a time, until told that it is over.

        The first batch may be empty: nothing is missed from then on, and what was read before is to be read
        once more. A folder that disappears is one batch, and its return is another.
        """
        while not over.is_set():
            yield from self._while_there(over)
            while not self._root.is_dir() and not over.wait(_LOOK_AGAIN):
                pass
            if not over.is_set():
                yield (self._root.name,)

    def _while_there(self, over: threading.Event) -> Iterator[tuple[str, ...]]:
        outside = () if self._manifest.is_relative_to(self._root) else (self._manifest.parent,)
        try:
            batches = watch(
                self._root,
                *outside,
                watch_filter=self._matters,
                debounce=self._quiet * _MOST,
                step=self._quiet,
                stop_event=over,
                rust_timeout=500,
                yield_on_timeout=True,
                raise_interrupt=False,
            )
            begun = False
            for batch in batches:
                if not self._root.is_dir():
                    yield (self._root.name,)
                    return
                if batch or not begun:
                    yield self._names(batch)
                begun = True
        except FileNotFoundError:
            return

    def _matters(self, change: Change, path: str) -> bool:
        place = Path(path)
        return (place.is_relative_to(self._root) or place == self._manifest) and self._filter(change, path)

    def _names(self, batch: set[tuple[Change, str]]) -> tuple[str, ...]:
        """Name each file once, and none that came and went meanwhile, as editors' own do."""
        kinds: dict[Path, set[Change]] = {}
        for change, path in batch:
            kinds.setdefault(Path(path), set()).add(change)
        found = sorted(
            str(place.relative_to(self._root)) if place.is_relative_to(self._root) else place.name
            for place, seen in kinds.items()
            if place.exists() or Change.added not in seen
        )
        more = (f"{len(found) - _NAMED} more",) if len(found) > _NAMED else ()
        return (*found[:_NAMED], *more)
