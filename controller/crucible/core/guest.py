"""What a plugin finds around it in every sandbox; what the hosts of wasm and rune programs are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from crucible.model.workload import Workload

HOSTS: Final = "127.0.0.1 localhost\n::1 localhost\n"
"""``/etc/hosts`` of a sandbox without a network."""
GUEST_TYPES: Final = frozenset({"wasm", "rune"})
"""Types whose program runs inside a host of ours, which counts what it executes."""
_HOST_NEEDS: Final = {"wasm": 32 << 20, "rune": 8 << 20}
"""Bytes that a host takes for itself, measured with an idle program inside."""


def host_flags(workload: Workload) -> tuple[str, ...]:
    """Return the words between a host and its program; none for a type that needs no host.

    The program gets what its host leaves of the instance's memory, so that it meets its own limit, with a
    message, before the kernel ends host and program without one.
    """
    if workload.type not in GUEST_TYPES:
        return ()
    return (
        *(("--fuel", str(workload.fuel)) if workload.fuel is not None else ()),
        *("--memory", str(_memory_of(workload))),
        *(("--time", f"{workload.time:g}") if workload.time is not None else ()),
        "--",
    )


def _memory_of(workload: Workload) -> int:
    whole = workload.limits.memory
    left = min(whole - _HOST_NEEDS[workload.type], whole * 3 // 4)  # an allocator keeps some of what it gives
    return max(left, whole // 4)
