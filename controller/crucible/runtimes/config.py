"""Configuration files that are replaced while a plugin runs: never half of one, and seen at once.

A plugin is shown the folder, read-only, not the file: a file that takes another's place in it is there for
whoever opens it next, and whoever reads the old one goes on reading that.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_FOLDER: Final = "config"
_FILE: Final = "config.json"


def folder_of(directory: Path) -> Path:
    """Return the folder that an instance is shown, in the directory that is kept for it."""
    return directory / _FOLDER


def place(directory: Path, config: str) -> None:
    """Put a configuration in the place of any that was there.

    Raises:
        OSError: it cannot be written; what was there is still there.
    """
    folder = folder_of(directory)
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)  # whatever the controller's umask is: the plugin is another user
    fresh = directory / f"{_FILE}.new"  # not in the folder, where it would be seen half written
    fresh.write_text(config)
    fresh.chmod(0o444)
    fresh.replace(folder / _FILE)


def read(directory: Path) -> str | None:
    """Return the configuration that is in place; None where there is none."""
    try:
        return (folder_of(directory) / _FILE).read_text()
    except FileNotFoundError:
        return None


def discard(directory: Path) -> None:
    """Delete the folder, where there is one."""
    folder = folder_of(directory)
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
