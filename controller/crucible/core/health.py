"""From answers to verdicts: whether an instance has started, is ready, or has to go; when to ask again."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from crucible.model.health import Answer, Check, Streak, Watch
from crucible.model.instance import State
from crucible.model.probe import Health
from crucible.model.quantity import format_bytes
from crucible.model.status import ProbeReport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.model.instance import Instance
    from crucible.model.probe import Probe, ResourceProbe
    from crucible.model.status import Replica
    from crucible.model.usage import Usage

_FIRST_RETRY: Final = 0.01
"""Seconds until one that has never passed is asked a second time."""
_LONGER: Final = 1.15
"""By which each pause is longer than the one before: what comes up is seen a seventh late at most."""
_MESSAGE: Final = 512


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked of instances, and what they answered lately.

    Attributes:
        health: of the manifest.
        streaks: the newest answers, by attempt and check.
        elsewhere: kinds of probe that the runtime asks by itself.
    """

    health: Health = field(default_factory=Health)
    streaks: Mapping[tuple[int, Check], Streak] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()

    @property
    def gates(self) -> bool:
        """An instance that runs may not be ready yet."""
        return bool(self.elsewhere) or self.health.ready is not None or self.health.startup is not None

    @property
    def health_here(self) -> Health:
        """What is asked here: neither what the runtime asks, nor what needs no asking."""
        others = {
            name: None
            for name, probe in self.health.probes
            if probe.kind in self.elsewhere or probe.kind == "process"
        }
        return self.health.model_copy(update=others) if others else self.health

    def holds_back(self, instance: Instance, known: Replica) -> bool:
        """Whether an instance has not passed a startup probe that the runtime asks, as far as it says."""
        startup = self.health.startup
        if startup is None or startup.kind not in self.elsewhere:
            return False
        asked = any(report.attempt == instance.slot.attempt for report in known.probes)
        return instance.ready is not True and not asked


@dataclass(frozen=True, slots=True)
class Wellbeing:
    """How one instance is.

    Attributes:
        ready: it can serve.
        failed: why it has to go, in words; empty where it may stay.
        probes: what its probes came to.
        watches: the probes to go on asking.
    """

    ready: bool
    failed: str = ""
    probes: tuple[ProbeReport, ...] = ()
    watches: tuple[Watch, ...] = ()

    @property
    def doubt(self) -> str:
        """Why it is not ready, in words."""
        said = (report.message for report in self.probes if not report.ok and report.message)
        return next(said, "its probes fail")


def examine(instance: Instance, known: Replica, since: float, asking: Asking) -> Wellbeing:
    """Say how an instance is, from its probes.

    ``startup`` comes first and alone; once it has passed, ``ready`` and ``live`` are asked side by side.

    Args:
        instance: one that was not asked to stop.
        known: what was last said of its replica.
        since: unix seconds when it was first seen to run.
        asking: what is asked, and the answers.
    """
    if instance.state is not State.RUNNING:
        return Wellbeing(ready=False)
    if asking.holds_back(instance, known):
        return Wellbeing(ready=False)
    health, attempt = asking.health_here, instance.slot.attempt
    reports = {report.check: report for report in known.probes if report.attempt == attempt}
    examined: dict[Check, ProbeReport | None] = {}
    watches: list[Watch] = []
    for check, probe in _asked(health, reports, asking.streaks, attempt):
        before = reports.get(check)
        report = examined[check] = judge(
            before, asking.streaks.get((attempt, check)), (attempt, check), probe
        )
        if not (check is Check.STARTUP and report is not None and report.passing):
            streak = None if report is None else _streak_of(report)
            settled = check is Check.LIVE or (report is not None and report.passing is not None)
            watches.append(Watch(instance.slot, check, probe, since, streak, settled=settled))
    probes = tuple(report for report in examined.values() if report is not None)
    ready = _is_ready(health, examined) and not (asking.elsewhere and instance.ready is False)
    return Wellbeing(ready, _failure(examined), probes, tuple(watches))


def _asked(
    health: Health,
    reports: Mapping[Check, ProbeReport],
    streaks: Mapping[tuple[int, Check], Streak],
    attempt: int,
) -> list[tuple[Check, Probe]]:
    """Return the probes whose turn it is."""
    startup = health.startup
    if startup is not None:
        key = (attempt, Check.STARTUP)
        report = judge(reports.get(Check.STARTUP), streaks.get(key), key, startup)
        if report is None or not report.passing:
            return [(Check.STARTUP, startup)]
    others = ((Check.STARTUP, startup), (Check.READY, health.ready), (Check.LIVE, health.live))
    return [(check, probe) for check, probe in others if probe is not None]


def judge(
    known: ProbeReport | None, streak: Streak | None, key: tuple[int, Check], probe: Probe
) -> ProbeReport | None:
    """Return what the answers to one probe come to: enough failures, enough successes, or what it was."""
    if streak is None:
        return known
    attempt, check = key
    passing = known.passing if known is not None else None
    if streak.ok and streak.count >= probe.successes:
        passing = True
    elif not streak.ok and streak.count >= probe.failures:
        passing = False
    return ProbeReport(
        check=check,
        attempt=attempt,
        passing=passing,
        ok=streak.ok,
        count=streak.count,
        message=streak.message[:_MESSAGE],
        at=streak.at,
    )


def tally(known: Streak | None, answer: Answer, at: float, watch: Watch) -> Streak:
    """Count one more answer.

    Until a probe has passed for the first time it is asked more often than its interval says, so as not to
    find out late; failures count once an interval all the same.
    """
    if known is None or known.ok is not answer.ok:
        return Streak(answer.ok, 1, answer.message, at)
    probe = watch.probe
    too_soon = not answer.ok and not watch.settled and at - known.at < probe.interval * (1 - probe.jitter)
    if too_soon or known.count >= (probe.successes if answer.ok else probe.failures):
        return known
    return replace(known, count=known.count + 1, message=answer.message, at=at)


def rate(before: Usage, after: Usage) -> float:
    """Return the cores used on average between two moments, or as the host says."""
    if after.cores is not None:
        return after.cores
    return max(after.cpu - before.cpu, 0.0) / max(after.at - before.at, 0.001)


def within(usage: Usage, cpu: float, most: ResourceProbe) -> Answer:
    """Return whether an instance stays within thresholds, and which it does not.

    Args:
        usage: what it uses.
        cpu: cores, on average.
        most: the thresholds.
    """
    over: list[str] = []
    if most.memory is not None and usage.memory > most.memory:
        over.append(f"memory {format_bytes(usage.memory)} > {format_bytes(most.memory)}")
    if most.cpu is not None and cpu * 1000 > most.cpu:
        over.append(f"cpu {round(cpu * 1000)}m > {most.cpu}m")
    if most.pids is not None and usage.pids > most.pids:
        over.append(f"pids {usage.pids} > {most.pids}")
    return Answer(ok=not over, message=", ".join(over))


def pause_before(watch: Watch, tries: int, *, ok: bool) -> float:
    """Return seconds until a probe is asked again.

    Args:
        watch: the probe.
        tries: how often it was asked already; with 0, the pause before the first asking counts from the
            moment at which the instance was first seen to run.
        ok: what it said last.
    """
    probe = watch.probe
    if tries == 0:
        return probe.initial if watch.known is None else probe.interval * _lot(watch, 0)
    regular = probe.interval * (1 - probe.jitter * _lot(watch, tries))
    if ok or watch.settled:
        return regular
    return min(_FIRST_RETRY * _LONGER ** min(tries - 1, 100), regular)


def _lot(watch: Watch, tries: int) -> float:
    """Return a number from 0 to 1 that is the same in every life of the controller."""
    seed = f"{watch.slot}/{watch.check.value}/{watch.since}/{tries}"
    return zlib.crc32(seed.encode()) / 2**32


def _is_ready(health: Health, examined: Mapping[Check, ProbeReport | None]) -> bool:
    for check, probe in ((Check.STARTUP, health.startup), (Check.READY, health.ready)):
        if probe is None:
            continue
        report = examined.get(check)
        if report is None or not report.passing:
            return False
    return True


def _failure(examined: Mapping[Check, ProbeReport | None]) -> str:
    for check, what in ((Check.STARTUP, "did not start"), (Check.LIVE, "is not alive")):
        report = examined.get(check)
        if report is not None and report.passing is False:
            return f"{what}: {report.message or 'its probe fails'}"[:_MESSAGE]
    return ""


def _streak_of(report: ProbeReport) -> Streak:
    return Streak(report.ok, report.count, report.message, report.at)
