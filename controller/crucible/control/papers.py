"""Small files of another room that a backup holds too, such as an authority that cannot be made again."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

SIZE_LIMIT: Final = 1 << 20
"""Bytes of one file."""


@dataclass(frozen=True, slots=True)
class Papers:
    """Which: the caller knows, a control plane knows nothing of them.

    Attributes:
        name: of their folder, in a backup and in the state folder.
        files: their names; those that are not there are left out.
        check: raises a CrucibleError where the files in a folder do not belong together.
    """

    name: str
    files: tuple[str, ...]
    check: Callable[[Path], object]

    def found_in(self, folder: Path) -> tuple[str, ...]:
        """Return which of them a folder holds, once they are checked.

        Raises:
            CrucibleError: they are damaged.
        """
        found = tuple(name for name in self.files if (folder / name).is_file())
        if found:
            self.check(folder)
        return found


def place_papers(draft: Path, names: Iterable[str], folder: Path) -> None:
    """Put files of a backup in the place of those in a folder; each that was there stays beside it."""
    for name in names:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        target, fresh = folder / name, folder / f".{name}.{secrets.token_hex(4)}"
        opened = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(opened, "wb") as file:
            file.write((draft / name).read_bytes())
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            target.replace(folder / f"{name}.before-restore")
        fresh.replace(target)
