"""Judges system calls in a pod by the profile it has: a node's own one promises less than ours. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crucible.model.enforcement import Control, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crucible.breakout.verdict import Check

_NAMED: Final = 8
SURELY: Final = frozenset(
    {"acct", "add_key", "bpf", "delete_module", "finit_module", "init_module", "kexec_load", "keyctl"}
    | {"mount"}
    | {"open_by_handle_at", "perf_event_open", "pivot_root", "quotactl", "reboot", "request_key", "setns"}
    | {"settimeofday", "swapoff", "swapon", "umount2", "unshare"}
)
"""Calls that every container runtime's default profile keeps from who has no capability."""


def judged(checks: Iterable[Check], *, ours: bool) -> tuple[tuple[Check, ...], tuple[Finding, ...]]:
    """Return the checks that count, and what there is to say besides.

    What only our profile denies is no failure of a node's own one.
    """
    kept = tuple(checks)
    if ours:
        return kept, ()
    wider = [check for check in kept if _is_wider(check)]
    names = [check.name.removeprefix("call ") for check in wider]
    left = tuple(check for check in kept if check not in wider)
    if not names:
        return left, ()
    some = ", ".join((*names[:_NAMED], *(["…"] if len(names) > _NAMED else [])))
    detail = f"RuntimeDefault of the suite's node lets {len(names)} through that ours does not ({some})"
    detail += "; 'crucible seccomp --help' has ours"
    return left, (Finding("system calls", ok=True, detail=detail),)


def _is_wider(check: Check) -> bool:
    """Whether a default profile may let it through: no namespace, nor a call that every such one denies."""
    if check.ok or check.control is not Control.SYSCALLS or not check.name.startswith(("call ", "open ")):
        return False
    return check.name.removeprefix("call ") not in SURELY
