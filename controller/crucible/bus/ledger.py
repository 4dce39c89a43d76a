"""What happened on the bus, counted by plugin; and what of it its people should hear."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from crucible.core.bus import TOLD

if TYPE_CHECKING:
    from collections.abc import Callable

QUIET: Final = 10.0
"""Seconds between two lines in the log about the same fault of the same plugin."""
REFUSALS: Final = 32
"""Different refusals of one plugin that are told within :data:`REFUSALS_SECONDS`, each once."""
REFUSALS_SECONDS: Final = 600.0
FLOOD: Final = 20_000
"""So often within :data:`FLOOD_SECONDS` a plugin is held back, with 16 frames that wait, before it is told:
32,000 frames a second, which is more than one that waits for answers ever sends."""
FLOOD_SECONDS: Final = 10.0

log = logging.getLogger("crucible.bus")


class Fault(StrEnum):
    """What a plugin can do wrong, or too much of."""

    REFUSED = "refused"
    MALFORMED = "malformed"
    OVERLOADED = "overloaded"
    UNREAD = "unread"
    MISSED = "missed"
    CONNECTIONS = "connections"
    STRANGER = "stranger"
    STORE_FULL = "storeFull"
    FLOOD = "flood"


_SAID: Final = {
    Fault.REFUSED: "the bus refused what the manifest does not grant",
    Fault.MALFORMED: "sent the bus what breaks its rules and was cut off",
    Fault.OVERLOADED: "asked more of the bus than fits and was refused",
    Fault.UNREAD: "does not read its answers and was cut off",
    Fault.MISSED: "reads too slowly and misses messages",
    Fault.CONNECTIONS: "connects to the bus more often than it may",
    Fault.STRANGER: "another user tried its socket",
    Fault.STORE_FULL: "its store is full",
    Fault.FLOOD: "sends without end and is held back",
}


@dataclass(slots=True)
class Account:
    """What one plugin did.

    Attributes:
        calls: it made.
        answered: it gave answers to.
        published: it sent.
        delivered: messages it got.
        faults: how often each.
        last: what was last the matter with each.
        told: when each was last logged.
        refusals: what it was refused, and when that was last told.
        held: how often it was held back since ``held_since``.
    """

    calls: int = 0
    answered: int = 0
    published: int = 0
    delivered: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)
    last: dict[Fault, str] = field(default_factory=dict)
    told: dict[Fault, float] = field(default_factory=dict)
    refusals: dict[str, float] = field(default_factory=dict)
    held: int = 0
    held_since: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the figures."""
        return {
            "calls": self.calls,
            "answered": self.answered,
            "published": self.published,
            "delivered": self.delivered,
            "faults": {fault.value: count for fault, count in self.faults.items()},
            "notices": self.notices(),
        }

    def notices(self, *, refusals: bool = True) -> list[str]:
        """Return what its people should hear, with what was refused or without."""
        return [
            f"{_SAID[fault]} ({self.faults[fault]} times; last: {detail})"
            for fault, detail in self.last.items()
            if refusals or fault is not Fault.REFUSED
        ]


class Ledger:
    """The accounts of all plugins of this machine.

    Attributes:
        heard: called with namespace and plugin when there is something that its people should hear.
        refused: called with namespace, plugin and what it was refused, of the same once in a while.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.heard: Callable[[str, str], None] = lambda _namespace, _plugin: None
        self.refused: Callable[[str, str, str], None] = lambda _namespace, _plugin, _what: None
        self._now = now
        self._accounts: dict[tuple[str, str], Account] = {}

    def of(self, namespace: str, plugin: str) -> Account:
        """Return a plugin's account, opened when there is none."""
        account = self._accounts.get((namespace, plugin))
        if account is None:
            account = self._accounts[namespace, plugin] = Account()
        return account

    def fault(self, namespace: str, plugin: str, fault: Fault, detail: str) -> None:
        """Count a fault and say so in the log, the same one not too often."""
        account = self.of(namespace, plugin)
        account.faults[fault] += 1
        account.last[fault] = detail[:TOLD]
        now = self._now()
        if fault is Fault.REFUSED:
            self._tell_refusal(namespace, plugin, account, detail[:TOLD])
        if now - account.told.get(fault, -QUIET) >= QUIET:
            account.told[fault] = now
            log.warning("%s/%s: %s: %s", namespace, plugin, _SAID[fault], detail[:TOLD])
            self.heard(namespace, plugin)

    def held_back(self, namespace: str, plugin: str) -> None:
        """Note that a plugin is not read on until the frames it sent were handled; who floods is told of."""
        account, now = self.of(namespace, plugin), self._now()
        if now - account.held_since > FLOOD_SECONDS:
            account.held, account.held_since = 0, now
        account.held += 1
        if account.held == FLOOD:
            self.fault(namespace, plugin, Fault.FLOOD, f"{FLOOD} times in {now - account.held_since:.0f} s")

    def _tell_refusal(self, namespace: str, plugin: str, account: Account, what: str) -> None:
        now = self._now()
        account.refusals = {key: at for key, at in account.refusals.items() if now - at < REFUSALS_SECONDS}
        if what not in account.refusals and len(account.refusals) < REFUSALS:
            account.refusals[what] = now
            self.refused(namespace, plugin, what)

    def keep(self, plugins: set[tuple[str, str]]) -> None:
        """Close the accounts of all others."""
        for key in [key for key in self._accounts if key not in plugins]:
            del self._accounts[key]

    def to_json(self) -> list[dict[str, Any]]:
        """Return all figures."""
        return [
            {"namespace": namespace, "plugin": plugin, **account.to_json()}
            for (namespace, plugin), account in self._accounts.items()
        ]
