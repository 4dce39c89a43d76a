from __future__ import annotations

from typing import Any

import pytest

from crucible.core.alerts import MOST_ALIKE, RULES, Alert, Host, evaluate
from crucible.model.status import format_time

NOW = 10_000.0
NO_HOST = Host()


def plugin(name: str = "echo", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default", "uid": name}, "status": status}


def condition(kind: str, *, holds: bool, reason: str, ago: float = 0.0) -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True" if holds else "False",
        "reason": reason,
        "message": f"{reason} it is",
        "lastTransitionTime": format_time(NOW - ago),
    }


def crashed(*ago: float) -> dict[str, Any]:
    return {"ordinal": 0, "crashes": [format_time(NOW - each) for each in sorted(ago, reverse=True)]}


def names(*plugins: dict[str, Any], host: Host = NO_HOST, now: float = NOW) -> list[str]:
    return [alert.rule.name for alert in evaluate(plugins, host, now)]


WELL = plugin(
    phase="Running",
    conditions=[
        condition("Ready", holds=True, reason="Running"),
        condition("Degraded", holds=False, reason="AsExpected"),
        condition("Stalled", holds=False, reason="Running"),
    ],
    instances=[crashed(500, 400)],
)


def test_nothing_is_told_of_what_is_well() -> None:
    assert names(WELL, plugin()) == []


def test_a_status_that_cannot_be_read_is_no_alert_and_no_error() -> None:
    assert names(plugin(phase="Dancing")) == []


QUARANTINED = plugin(
    phase="Quarantined",
    conditions=[
        condition("Ready", holds=False, reason="CrashLoop", ago=9000),
        condition("Stalled", holds=True, reason="CrashLoop", ago=50),
    ],
    instances=[crashed(60, 55, 50)],
)


def test_quarantine_is_told_once_and_since_it_began() -> None:
    (alert,) = evaluate([QUARANTINED], NO_HOST, NOW)
    assert alert == Alert(alert.rule, NOW - 50, "CrashLoop: CrashLoop it is", "default", "echo")
    assert alert.rule.name == "CruciblePluginsQuarantined"
    assert dict(alert.labels) == {
        "alertname": "CruciblePluginsQuarantined",
        "severity": "warning",
        "namespace": "default",
        "plugin": "echo",
    }


def test_three_crashes_are_a_loop_begun_with_the_third() -> None:
    (alert,) = evaluate([plugin(phase="BackOff", instances=[crashed(30, 20, 10)])], NO_HOST, NOW)
    assert (alert.rule.name, alert.since) == ("CruciblePluginsCrashLoop", NOW - 10)
    assert names(plugin(phase="BackOff", instances=[crashed(30, 20)])) == []


@pytest.mark.parametrize(
    ("status", "ago", "name"),
    [
        ({"phase": "Refused", "kind": "Stalled", "holds": True}, 60, "CruciblePluginsRefused"),
        ({"phase": "Starting", "kind": "Ready", "holds": False}, 900, "CruciblePluginsPending"),
    ],
)
def test_some_have_to_last(status: dict[str, Any], ago: float, name: str) -> None:
    def lasting(seconds: float) -> dict[str, Any]:
        what = condition(status["kind"], holds=status["holds"], reason="Why", ago=seconds)
        return plugin(phase=status["phase"], conditions=[what])

    assert names(lasting(ago)) == [name]
    assert names(lasting(ago - 1)) == []


@pytest.mark.parametrize("phase", ["Suspended", "Terminating"])
def test_what_a_person_put_to_rest_is_not_waited_for(phase: str) -> None:
    assert names(plugin(phase=phase, conditions=[condition("Ready", holds=False, reason="S", ago=9e3)])) == []


def test_a_control_that_does_not_hold_is_told_and_a_crash_is_not_that() -> None:
    weak = condition("Degraded", holds=True, reason="WeakerThanPromised")
    assert names(plugin(phase="Running", conditions=[weak])) == ["CruciblePluginsDegraded"]
    limited = condition("Degraded", holds=True, reason="Limited")
    assert names(plugin(phase="Running", conditions=[limited])) == []


def test_an_outage_is_one_alert_however_many_plugins_wait() -> None:
    def out(name: str, ago: float) -> dict[str, Any]:
        ready = condition("Ready", holds=False, reason="RuntimeUnavailable", ago=9000)
        stalled = condition("Stalled", holds=True, reason="RuntimeUnavailable", ago=ago)
        return plugin(name, phase="Pending", conditions=[ready, stalled])

    (alert,) = evaluate([out("a", 70), out("b", 40)], NO_HOST, NOW)
    assert (alert.rule.name, alert.rule.severity, alert.since) == ("CrucibleOutage", "critical", NOW - 70)
    assert alert.plugin == ""
    assert "2 plugins wait" in alert.message
    assert names(out("a", 30)) == []


def test_a_companion_that_is_missed_is_one_alert_however_many_plugins_need_it() -> None:
    def without(name: str, ago: float, *, holds: bool = True) -> dict[str, Any]:
        missed = condition("Degraded", holds=holds, reason="CompanionFailed", ago=ago)
        return plugin(name, phase="Running", conditions=[missed])

    (alert,) = evaluate([without("a", 70), without("b", 90), without("c", 500, holds=False)], NO_HOST, NOW)
    assert (alert.rule.name, alert.rule.severity, alert.since) == ("CrucibleCompanion", "critical", NOW - 90)
    assert (alert.plugin, alert.message) == ("", "2 plugins need it. CompanionFailed it is")
    assert names(without("a", 59)) == []


def test_many_ends_together_are_a_storm() -> None:
    few = [plugin(f"p{at}", phase="Running", instances=[crashed(10 + at, 20 + at)]) for at in range(9)]
    assert names(*few) == []
    many = [*few, plugin("p9", phase="Running", instances=[crashed(1, 2)])]
    assert names(*many) == ["CruciblePluginsRestart"]
    assert names(*many, now=NOW + 400) == []


def test_a_disk_that_is_nearly_full_is_told() -> None:
    assert names(host=Host(free=5 << 20, size=100 << 20)) == ["CrucibleDisk"]
    assert names(host=Host(free=11 << 20, size=100 << 20)) == []
    assert names(host=Host()) == []


def test_a_fault_of_very_many_is_one_message() -> None:
    refused = condition("Stalled", holds=True, reason="Invalid", ago=100)
    some = [plugin(f"p{at}", phase="Refused", conditions=[refused]) for at in range(MOST_ALIKE)]
    assert len(evaluate(some, NO_HOST, NOW)) == MOST_ALIKE
    (alert,) = evaluate([*some, plugin("more", phase="Refused", conditions=[refused])], NO_HOST, NOW)
    assert alert.plugin == ""
    assert alert.message.startswith("51 plugins, default/more, default/p0, ")


def test_a_controller_that_was_restarted_comes_to_the_same_alerts() -> None:
    plugins = [QUARANTINED, plugin("b", phase="BackOff", instances=[crashed(30, 20, 10)])]
    before, after = evaluate(plugins, NO_HOST, NOW), evaluate(plugins, NO_HOST, NOW + 30)
    assert before == after


def test_every_rule_has_a_name_of_its_own() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
