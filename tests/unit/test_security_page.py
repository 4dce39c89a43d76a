"""The threat model names tests that exist, and every control."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crucible.model.enforcement import Control

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::([\w*]+)`", PAGE)))
FIXED = tuple(Control)[: tuple(Control).index(Control.OPEN_FILES) + 1]


def test_it_names_tests() -> None:
    assert len(TESTS) >= 20


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_every_test_it_names_is_there(path: str, name: str) -> None:
    text = (ROOT / path).read_text()
    assert re.search(r"def test_\w+\(" if name == "*" else rf"def {name}\(", text), f"{path}::{name}"


@pytest.mark.parametrize("control", FIXED)
def test_every_control_that_holds_every_plugin_has_its_row(control: Control) -> None:
    assert re.search(rf"^\| .*`{control.value}`.*\|.*\|.*\|$", PAGE, re.MULTILINE)


def test_the_report_page_leads_here() -> None:
    assert "docs/security.md" in (ROOT / "SECURITY.md").read_text()
