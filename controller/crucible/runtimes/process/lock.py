"""Keeps two controllers from using one state directory."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from crucible.errors import Conflict

if TYPE_CHECKING:
    from pathlib import Path


def take(state_dir: Path) -> int:
    """Lock a directory; the descriptor returned holds the lock until it is closed.

    Raises:
        Conflict: another controller holds it.
    """
    lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise Conflict(f"another controller uses {state_dir}") from error
    return lock
