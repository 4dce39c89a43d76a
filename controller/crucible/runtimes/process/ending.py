"""How an instance ended, judged from what is left of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from signal import SIGKILL
from typing import Final

from crucible.model.instance import Exit

_SIGNALLED: Final = 128
_LAST_SIGNAL: Final = 64
_BWRAP: Final = b"bwrap: "


@dataclass(frozen=True, slots=True)
class Remains:
    """What an ended instance left.

    Attributes:
        at: when it ended, unix seconds.
        code: the exit status bubblewrap reported; None when it reported none.
        oom_kills: how many of its processes the kernel killed for memory.
        killed: it was ended by force, on request.
        outlived: processes of it were still there when its monitor was not.
        last_line: the last line of its output.
    """

    at: float
    code: int | None
    oom_kills: int
    killed: bool
    outlived: bool
    last_line: bytes


def judge(remains: Remains) -> Exit:
    """Say how an instance ended.

    Bubblewrap reports a program that a signal ended as 128 and the signal's number, as shells do; a program
    that exits with such a status by itself cannot be told from that.
    """
    code = remains.code
    if remains.oom_kills and code in {None, _SIGNALLED + SIGKILL}:
        return Exit(at=remains.at, signal=int(SIGKILL), oom=True)
    if code is not None:
        if _SIGNALLED < code <= _SIGNALLED + _LAST_SIGNAL:
            return Exit(at=remains.at, signal=code - _SIGNALLED)
        return Exit(at=remains.at, code=code)
    if remains.killed:
        return Exit(at=remains.at, signal=int(SIGKILL))
    if remains.last_line.startswith(_BWRAP) and not remains.outlived:
        # No status, so the program never ran, and this line is bubblewrap's own.
        words = remains.last_line.removeprefix(_BWRAP).decode(errors="replace")
        return Exit(at=remains.at, problem=f"the sandbox could not start it: {words}")
    return Exit(at=remains.at, problem="the sandbox's monitor was killed, and the plugin with it")
