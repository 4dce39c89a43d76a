"""What people should be told of without looking: rules over Plugins' status and the state of the host. Pure.

Every rule reads what is on record, with the times that are on record. A controller that was restarted
therefore comes to the same alerts, begun at the same moments, as the one before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import ValidationError

from crucible.model.status import Phase, PluginStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from crucible.model.status import Condition

Severity = Literal["warning", "critical"]
RUNBOOK: Final = "docs/runbook.md"
MOST_ALIKE: Final = 50
"""Alerts of one rule beyond which they are told as one, so that a fault of all is one message."""
_NAMED: Final = 10
_RESTING: Final = frozenset({Phase.SUSPENDED, Phase.FROZEN})
"""A person wants it so."""
_CRASHES: Final = 3
_STORM: Final = 20
_STORM_SECONDS: Final = 300.0
_DISK_LOW: Final = 0.1
_TALK: Final = 1024


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of alert.

    Attributes:
        name: as the runbook has it.
        severity: ``critical`` where plugins are no longer looked after.
        lasts: seconds for which it has to have been so.
        summary: what is wrong, in one clause.
    """

    name: str
    severity: Severity
    lasts: float
    summary: str


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that is wrong now.

    Attributes:
        rule: its kind.
        since: unix seconds from which on it was so.
        message: in words, for people.
        namespace: of the Plugin it is about; empty: of several, or of the control plane.
        plugin: the Plugin's name.
    """

    rule: Rule
    since: float
    message: str
    namespace: str = ""
    plugin: str = ""

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """What makes it this alert and no other, for whoever takes it."""
        about = (("namespace", self.namespace), ("plugin", self.plugin))
        kind = (("alertname", self.rule.name), ("severity", self.rule.severity))
        return (*kind, *(pair for pair in about if pair[1]))


@dataclass(frozen=True, slots=True)
class Host:
    """What is known of where the control plane keeps its state.

    Attributes:
        free: bytes left for us.
        size: bytes in all; 0: not known.
    """

    free: int = 0
    size: int = 0


QUARANTINED: Final = Rule(
    "CruciblePluginsQuarantined", "warning", 0, "crashed too often and is not started again"
)
CRASH_LOOP: Final = Rule("CruciblePluginsCrashLoop", "warning", 0, "crashes again and again")
REFUSED: Final = Rule("CruciblePluginsRefused", "warning", 60, "may not run as it is")
PENDING: Final = Rule("CruciblePluginsPending", "warning", 900, "has not been ready for a quarter of an hour")
DEGRADED: Final = Rule("CruciblePluginsDegraded", "warning", 0, "runs though a control does not hold")
OUTAGE: Final = Rule("CrucibleOutage", "critical", 60, "the runtime does not answer")
STORM: Final = Rule("CruciblePluginsRestart", "warning", 0, "many plugins are restarted at once")
COMPANION: Final = Rule(
    "CrucibleCompanion", "critical", 60, "the broker or the egress proxy does not run as it should"
)
DISK: Final = Rule("CrucibleDisk", "critical", 0, "the control plane's disk is nearly full")

RULES: Final = (QUARANTINED, CRASH_LOOP, REFUSED, PENDING, DEGRADED, OUTAGE, COMPANION, STORM, DISK)

_Found = tuple[float, str] | None


def evaluate(plugins: Iterable[Mapping[str, Any]], host: Host, now: float) -> tuple[Alert, ...]:
    """Return every alert there is now.

    Args:
        plugins: every Plugin object, as last seen.
        host: where the state is.
        now: unix seconds.
    """
    read = [(plugin["metadata"], _status(plugin)) for plugin in plugins]
    alerts: list[Alert] = []
    for rule, find in _OF_A_PLUGIN:
        of_rule = [
            Alert(rule, found[0], found[1], str(meta.get("namespace", "")), str(meta["name"]))
            for meta, status in read
            if (found := find(status)) is not None and now - found[0] >= rule.lasts
        ]
        alerts += of_rule if len(of_rule) <= MOST_ALIKE else [_as_one(of_rule)]
    statuses = [status for _, status in read]
    of_all = (*_outage(statuses, now), *_companion(statuses, now), *_storm(statuses, now))
    return (*alerts, *of_all, *_disk(host, now))


def _status(plugin: Mapping[str, Any]) -> PluginStatus:
    try:
        return PluginStatus.model_validate(plugin.get("status") or {})
    except ValidationError:
        return PluginStatus()


def _as_one(alike: Sequence[Alert]) -> Alert:
    names = ", ".join(sorted(f"{each.namespace}/{each.plugin}" for each in alike)[:_NAMED])
    words = f"{len(alike)} plugins, {names} and others; the first: {alike[0].message}"
    return Alert(alike[0].rule, min(each.since for each in alike), words[:_TALK])


def _condition(status: PluginStatus, kind: str) -> Condition | None:
    return next((each for each in status.conditions if each.type == kind), None)


def _while(status: PluginStatus, kind: str, *, holds: bool = True) -> _Found:
    """Return since when a condition has been so, and its words."""
    found = _condition(status, kind)
    if found is None or found.status != ("True" if holds else "False"):
        return None
    return found.last_transition_time, f"{found.reason}: {found.message}"[:_TALK]


def _quarantined(status: PluginStatus) -> _Found:
    return _while(status, "Stalled") if status.phase is Phase.QUARANTINED else None


def _crash_loop(status: PluginStatus) -> _Found:
    if status.phase in {*_RESTING, Phase.QUARANTINED, Phase.REFUSED, Phase.TERMINATING}:
        return None
    looping = [replica for replica in status.instances if len(replica.crashes) >= _CRASHES]
    if not looping:
        return None
    first = looping[0]
    last = first.last_exit.message if first.last_exit is not None else "ended"
    words = f"replica {first.ordinal} ended {len(first.crashes)} times lately, the last time it {last}"
    return first.crashes[_CRASHES - 1], words[:_TALK]


def _refused(status: PluginStatus) -> _Found:
    return _while(status, "Stalled") if status.phase is Phase.REFUSED else None


def _pending(status: PluginStatus) -> _Found:
    told_otherwise = {*_RESTING, Phase.QUARANTINED, Phase.REFUSED, Phase.TERMINATING}
    if status.phase in told_otherwise or _is_out(status):
        return None
    return _while(status, "Ready", holds=False)


def _degraded(status: PluginStatus) -> _Found:
    found = _condition(status, "Degraded")
    return _while(status, "Degraded") if found and found.reason == "WeakerThanPromised" else None


def _is_out(status: PluginStatus) -> bool:
    found = _condition(status, "Stalled")
    return found is not None and found.status == "True" and found.reason == "RuntimeUnavailable"


def _outage(statuses: Sequence[PluginStatus], now: float) -> Iterable[Alert]:
    """One for all: a runtime that does not answer is one fault, however many plugins it has."""
    out = [found for status in statuses if _is_out(status) and (found := _while(status, "Stalled"))]
    since = min((at for at, _ in out), default=now)
    if out and now - since >= OUTAGE.lasts:
        yield Alert(OUTAGE, since, f"{len(out)} plugins wait for it. {out[0][1]}"[:_TALK])


def _companion(statuses: Sequence[PluginStatus], now: float) -> Iterable[Alert]:
    """One for all: the same program serves every plugin."""
    without = [
        each
        for status in statuses
        if (each := _condition(status, "Degraded")) is not None
        and each.status == "True"
        and each.reason == "CompanionFailed"
    ]
    since = min((each.last_transition_time for each in without), default=now)
    if without and now - since >= COMPANION.lasts:
        yield Alert(COMPANION, since, f"{len(without)} plugins need it. {without[0].message}"[:_TALK])


def _storm(statuses: Sequence[PluginStatus], now: float) -> Iterable[Alert]:
    crashes = sorted(
        at
        for status in statuses
        for replica in status.instances
        for at in replica.crashes
        if at > now - _STORM_SECONDS
    )
    if len(crashes) >= _STORM:
        plugins = sum(any(each.crashes for each in status.instances) for status in statuses)
        words = f"{len(crashes)} ends of {plugins} plugins within {_STORM_SECONDS / 60:.0f} minutes"
        yield Alert(STORM, crashes[_STORM - 1], words)


def _disk(host: Host, now: float) -> Iterable[Alert]:
    if host.size and host.free < host.size * _DISK_LOW:
        words = f"{host.free >> 20} MiB of {host.size >> 20} MiB are left where the state is kept"
        yield Alert(DISK, now, words)


_OF_A_PLUGIN: Final[tuple[tuple[Rule, Callable[[PluginStatus], _Found]], ...]] = (
    (QUARANTINED, _quarantined),
    (CRASH_LOOP, _crash_loop),
    (REFUSED, _refused),
    (PENDING, _pending),
    (DEGRADED, _degraded),
)
