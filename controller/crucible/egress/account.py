"""What the proxy keeps of one plugin: its grant, its speed, its counters, what it was refused."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from crucible.core.egress import Grant
from crucible.egress.bucket import Bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crucible.core.egress import Denial
    from crucible.egress.conversation import Conversation

_DENIALS_MOST: Final = 32
_DENIALS_SECONDS: Final = 600.0
_LOOKUPS: Final = 4


@dataclass(slots=True)
class Counters:
    """What went through since the proxy began.

    Attributes:
        sent: bytes from the plugin.
        received: bytes to it.
        connections: how many were let through.
        denied: how many were refused.
    """

    sent: int = 0
    received: int = 0
    connections: int = 0
    denied: int = 0


@dataclass(slots=True)
class Account:
    """One plugin.

    Attributes:
        namespace: of the Plugin.
        plugin: its name.
        plugin_uid: its uid.
        tell: tells the controller something.
        now: a clock that goes forward, in seconds.
        grant: what it may do.
        doors: the keys of its doors.
        conversations: what goes on.
        lookups: keeps it from occupying every thread that resolves names.
    """

    namespace: str
    plugin: str
    plugin_uid: str
    tell: Callable[[Mapping[str, Any]], None]
    now: Callable[[], float]
    grant: Grant = field(default_factory=Grant)
    counters: Counters = field(default_factory=Counters)
    doors: set[str] = field(default_factory=set)
    conversations: set[Conversation] = field(default_factory=set)
    lookups: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_LOOKUPS))
    bucket: Bucket = field(init=False)
    _told: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with a full bucket."""
        self.bucket = Bucket(self.grant.rate, self.now())

    def change(self, grant: Grant) -> None:
        """Hold it to another grant: what is not allowed any more is cut, everything else goes on."""
        self.grant = grant
        if self.bucket.rate != grant.rate:
            self.bucket.change(grant.rate, self.now())
        for conversation in tuple(self.conversations):
            conversation.judge_again()

    def deny(self, denial: Denial) -> None:
        """Count a refusal, and tell of it unless the same was told of lately, or very many others were."""
        self.counters.denied += 1
        now = self.now()
        self._told = {key: at for key, at in self._told.items() if now - at < _DENIALS_SECONDS}
        key = denial.grant or denial.reason
        if key in self._told or len(self._told) >= _DENIALS_MOST:
            return
        self._told[key] = now
        self.tell(
            {
                "denied": denial.reason[:500],
                "grant": denial.grant[:300],
                "namespace": self.namespace,
                "plugin": self.plugin,
                "pluginUid": self.plugin_uid,
            }
        )

    def end_the_idle(self, longest: float) -> None:
        """Cut every conversation in which nothing was heard for so many seconds."""
        before = self.now() - longest
        for conversation in tuple(self.conversations):
            if conversation.heard_at < before:
                conversation.cut()

    def summary(self) -> dict[str, int]:
        """Return its counters."""
        return {
            "sent": self.counters.sent,
            "received": self.counters.received,
            "connections": self.counters.connections,
            "open": len(self.conversations),
            "denied": self.counters.denied,
        }
