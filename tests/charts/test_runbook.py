"""The runbook has an entry for whatever a person can be told, and for nothing that is said no more."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest
from release import EVERYTHING, REPOSITORY, of_kind

from crucible.core.alerts import RULES

if TYPE_CHECKING:
    from pathlib import Path

    from release import Release

RUNBOOK = (REPOSITORY / "docs/runbook.md").read_text()
PACKAGE = REPOSITORY / "controller/crucible"
# Alerts are named in the runbook too, in a section of their own.
DECIDING = (
    *sorted(set((PACKAGE / "core").glob("*.py")) - {PACKAGE / "core/alerts.py"}),
    PACKAGE / "model/instance.py",
)
# Words of the same shape that are no reasons: types of conditions and events, truths, keys of a profile.
NO_REASONS = {
    *("Ready", "Progressing", "Degraded", "Stalled", "Reconciling", "True", "False", "Unknown"),
    *("Normal", "Warning", "Action", "ErrnoRet"),
}
WORD = re.compile(r"[A-Z][A-Za-z]*[a-z]")


def reasons(path: Path) -> set[str]:
    """Return every literal of a module that has the shape of a reason."""
    found = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
    return {text for text in found if isinstance(text, str) and WORD.fullmatch(text)} - NO_REASONS


SAID = set().union(*map(reasons, DECIDING))
ENTRIES = re.findall(r"^\| `(\w+)` \|", RUNBOOK, re.MULTILINE)


def test_reasons_are_found_in_the_code() -> None:
    assert {"CrashLoop", "NotEnforceable", "OOMKilled", "UpdateFailing", "Unreachable"} <= SAID


@pytest.mark.parametrize("reason", sorted(SAID))
def test_every_reason_has_one_entry(reason: str) -> None:
    assert ENTRIES.count(reason) == 1


def test_no_entry_is_about_what_is_never_said() -> None:
    assert set(ENTRIES) - SAID == set()


def test_entries_are_in_order() -> None:
    for section in RUNBOOK.split("\n## "):
        listed = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        assert listed == sorted(listed)


def test_every_alert_has_an_entry_and_leads_there(release: Release) -> None:
    objects = release.objects(EVERYTHING)
    alerts = [
        rule
        for rules in of_kind(objects, "PrometheusRule")
        for group in rules["spec"]["groups"]
        for rule in group["rules"]
    ]
    assert alerts
    entries = re.findall(r"^### (Crucible\w+)$", RUNBOOK, re.MULTILINE)
    assert sorted(entries) == sorted({rule["alert"] for rule in alerts} | {rule.name for rule in RULES})
    for rule in alerts:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
