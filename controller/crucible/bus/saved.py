"""What a file of the broker's is to a backup: a store, whose it is, and how much of it is whole."""

from __future__ import annotations

import json
import os
import re
from typing import Final

from crucible.bus.records import ABOUT, records
from crucible.bus.shelf import file_of

NAMES: Final = re.compile(r"[0-9a-f]{40}")
MOST_BYTES: Final = 3 * 2**30
"""Of one file: a store of 1 GiB may have as much of the past beside it before it is written anew."""
MOST_FILES: Final = 65_536


def whole_store(file: int, name: str) -> int:
    """Return up to which byte a store's file is whole; 0 for one that is nobody's, or of a wrong name."""
    end, owned = 0, False
    if os.fstat(file).st_size > MOST_BYTES:
        return MOST_BYTES + 1
    for operation, _, _, value, at in records(file):
        if operation == ABOUT and not owned:
            owned = _is_of(value, name)
        end = at + len(value)
        if end > MOST_BYTES:
            break
    return end if owned else 0


def _is_of(value: bytes, name: str) -> bool:
    try:
        about = json.loads(value)
        return file_of((str(about["namespace"]), str(about["plugin"]))) == name
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
