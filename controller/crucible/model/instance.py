"""One running (or ended) copy of a plugin, as its runtime reports it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from signal import Signals
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from crucible.model.workload import Slot


class State(StrEnum):
    """Where an instance is in its life. Only ``EXITED`` is final."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    EXITED = "exited"


CRASHED: Final = "Crashed"
"""The reason of an end that is a program's own fault, as far as is known."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How an instance ended.

    Attributes:
        at: unix seconds.
        code: exit status, None when a signal ended it or nobody saw the end.
        signal: the signal that ended it.
        oom: the kernel killed it for its memory limit.
        problem: why it never ran, or why its end is unknown; empty otherwise.
        lost: it had run, and something from outside took it away: a person, the host's end.
    """

    at: float
    code: int | None = None
    signal: int | None = None
    oom: bool = False
    problem: str = ""
    lost: bool = False

    @property
    def reason(self) -> str:
        """One CamelCase word, as Kubernetes prints reasons."""
        if self.oom:
            return "OOMKilled"
        if self.problem:
            return "Lost" if self.lost else "StartFailed"
        return "Completed" if self.code == 0 else CRASHED

    def __str__(self) -> str:
        """A clause for people: ``was killed by the kernel: it went over its memory limit``."""
        if self.oom:
            return "was killed by the kernel: it went over its memory limit"
        if self.problem:
            return self.problem
        if self.signal is not None:
            return f"was ended by {_signal_name(self.signal)}"
        return f"exited with status {self.code}"


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance.

    Attributes:
        plugin_uid: the Plugin that owns it.
        name: ``plugin-ordinal-attempt``, unique in its namespace; for people and logs.
        slot: which replica, which attempt.
        revision: of the workload it was started from.
        state: where it is in its life.
        created_at: unix seconds.
        stopping_at: when it was asked to stop, unix seconds; None while nobody asked.
        pid: of the plugin's main process on this host, where there is one.
        exit: how it ended; None until it did.
        notices: what it does that a person should know, in words: ``output is throttled to 1 MiB/s``.
        namespace: of the Plugin.
        plugin: the Plugin's name.
        source: digest of the snapshot it runs from.
        endpoints: where its ports can be reached from the host: ``8080 at 127.0.0.1:49153``.
        frozen: it is held still: none of its processes gets the processor.
        config: digest of the configuration it was given last; empty where its runtime does not say.
        reached: new connections from outside come to it, as far as its runtime decides that.
        ready: what its probes came to, where its runtime asks them itself; None where it does not.
    """

    plugin_uid: str
    name: str
    slot: Slot
    revision: str
    state: State
    created_at: float
    stopping_at: float | None = None
    pid: int | None = None
    exit: Exit | None = None
    notices: tuple[str, ...] = ()
    namespace: str = ""
    plugin: str = ""
    source: str = ""
    endpoints: tuple[str, ...] = ()
    ready: bool | None = None
    config: str = ""
    frozen: bool = False
    reached: bool = True

    @property
    def alive(self) -> bool:
        """It may still run code."""
        return self.state is not State.EXITED


def _signal_name(number: int) -> str:
    return Signals(number).name if number in set(Signals) else f"signal {number}"
