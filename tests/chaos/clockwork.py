"""Runs the command line with a wall clock that can be set: ``clockwork.py FILE PROGRAM up …``.

FILE holds eight bytes, a double: the seconds by which ``time.time()`` is wrong, for this program alone. What
the kernel stamps, files' times above all, stays right, as it does where only one side's clock is stepped.
Sweeps come often.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from pathlib import Path


def main() -> None:
    """Take the clock over, then be the program."""
    with Path(sys.argv[1]).open("rb") as file:
        memory = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    right = time.time

    def wrong() -> float:
        return right() + float(struct.unpack_from("d", memory)[0])

    time.time = wrong
    sys.argv = sys.argv[2:]
    from crucible import bootstrap  # noqa: PLC0415 - after the clock was taken over
    from crucible.cli.app import main as crucible  # noqa: PLC0415 - the same

    bootstrap.SWEEP_INTERVAL = 2.0
    crucible()


if __name__ == "__main__":
    main()
