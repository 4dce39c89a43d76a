"""A small disk, where root may mount one: it can be full, and its state read-only."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SIZE = "48m"


class Disk:
    """A folder with the folder ``state`` on it.

    Attributes:
        place: the folder.
        mounted: it is a file system of its own.
    """

    def __init__(self, place: Path, *, mounted: bool) -> None:
        self.place = place
        self.mounted = mounted
        self._covers: list[str] = []
        self._is_open = False

    @property
    def state(self) -> Path:
        return self.place / "state"

    def open(self) -> None:
        self.place.mkdir()
        if self.mounted:
            _run("mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=0700", "chaos", str(self.place))
            self._is_open = True
        self.state.mkdir(mode=0o700)

    def fill(self) -> None:
        """Leave no room."""
        with suppress(OSError), (self.place / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * (1 << 16))

    def make_room(self) -> None:
        (self.place / "ballast").unlink(missing_ok=True)

    def cover(self) -> None:
        """Cover the state with a read-only view of itself: only what is open already can be written."""
        view = self.place.with_name("view")
        view.mkdir(exist_ok=True)
        # Made read-only apart, where nobody writes yet, and only then laid over the state.
        _run("mount", "--bind", str(self.state), str(view))
        self._covers.append(str(view))
        _run("mount", "-o", "remount,bind,ro", str(view))
        _run("mount", "--bind", str(view), str(self.state))
        self._covers.append(str(self.state))

    def uncover(self) -> None:
        while self._covers:
            _run("umount", "--lazy", self._covers.pop())

    def close(self) -> None:
        self.uncover()
        if self._is_open:
            _run("umount", "--lazy", str(self.place))
            self._is_open = False


def _run(*words: str) -> None:
    subprocess.run(words, check=True)
