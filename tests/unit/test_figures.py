"""What a controller tells Prometheus."""

from __future__ import annotations

from collections import Counter

from crucible.figures import Standing, figures
from crucible.telemetry.metrics import Family, exposition


def test_plugins_turns_restarts_and_changes_are_told() -> None:
    plugins = [
        {"status": {"phase": "Running", "restarts": 2}},
        {"status": {"phase": "Running"}},
        {},
    ]
    changes = Counter({("Ready", "False", "BackOff"): 3})
    lines = figures(Standing(plugins, 7, changes, 0.5, outage=True, leader=False, shut=True)).splitlines()
    assert {
        "crucible_leader 0",
        "crucible_loop_age_seconds 0.5",
        'crucible_plugins{phase="Running"} 2',
        'crucible_plugins{phase="Pending"} 1',
        'crucible_plugins{phase="Refused"} 0',
        "crucible_reconciles_total 7",
        "crucible_restarts 2",
        "crucible_outage 1",
        "crucible_lines_shut 1",
        'crucible_condition_transitions_total{condition="Ready",status="False",reason="BackOff"} 3',
        "# TYPE crucible_condition_transitions_total counter",
    } <= set(lines)


def test_large_counters_are_not_rounded() -> None:
    text = exposition([Family("many_total", "counter", "Many.", {(): 12_345_678})])
    assert text.splitlines()[-1] == "many_total 12345678"
