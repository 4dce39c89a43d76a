"""What an instance uses of its host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """What all processes of one instance use together, at one moment.

    Two of these, taken apart, give a rate: ``(after.cpu - before.cpu) / (after.at - before.at)`` cores.

    Attributes:
        at: the moment, unix seconds.
        cpu: seconds of processor time used so far; never falls.
        memory: bytes held now that the kernel could not simply drop: without file pages not lately used.
        memory_peak: the most bytes ever held, file pages included; None where nobody counts.
        pids: processes and threads of the plugin now.
        throttled: seconds so far in which it could have run and its cpu limit held it.
        disk: bytes in its scratch places now; None where nobody counts.
        cores: cores used lately, on average, where the host tells that and no total.
    """

    at: float
    cpu: float
    memory: int
    memory_peak: int | None
    pids: int
    throttled: float
    cores: float | None = None
    disk: int | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went through the egress proxy for all instances of a plugin, since one of them or the proxy began.

    Attributes:
        sent: bytes from the plugin.
        received: bytes to it.
        connections: how many were let through.
        open: how many there are now.
        denied: how many were refused.
    """

    sent: int
    received: int
    connections: int
    open: int
    denied: int
