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
        ran: the plugin itself was seen running.
        rebooted: it ran in an earlier boot of this host.
        mark: the name the sandbox's processes bear.
        last_line: the last line of its output.
    """

    at: float
    code: int | None
    oom_kills: int
    killed: bool
    ran: bool
    rebooted: bool
    mark: str
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
    return Exit(at=remains.at, problem=_unreported(remains), lost=remains.ran or remains.rebooted)


def _unreported(remains: Remains) -> str:
    """Say why there is no exit status."""
    if remains.rebooted:
        return "the host was restarted while it ran"
    if not remains.ran:
        # No status, so the program never ran, and a line like this is bubblewrap's own, or its loader's.
        for speaker in (_BWRAP, remains.mark.encode() + b": "):
            if remains.last_line.startswith(speaker):
                words = remains.last_line.removeprefix(speaker).decode(errors="replace")
                return f"the sandbox could not start it: {words}"
    return "its sandbox was killed from outside, and the plugin with it"
