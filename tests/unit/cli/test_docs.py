"""The page about the command line names every command, option and exit code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from crucible.cli import exits
from crucible.cli.app import commands

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "cli.md").read_text()


@pytest.mark.parametrize("name", sorted(commands().commands))
def test_every_option_is_documented(crucible: Any, name: str) -> None:
    assert f"`crucible {name}" in PAGE
    text = crucible(name, "--help").out
    options = set(
        re.findall(r"(?<![\w-])--[a-z][a-z-]+", text.partition("Options:")[2].partition("Examples:")[0])
    )
    assert options
    missing = sorted(option for option in options - {"--help", "--no-wait"} if option not in PAGE)
    assert missing == []


@pytest.mark.parametrize("name", sorted(commands().commands))
def test_every_command_has_examples(crucible: Any, name: str) -> None:
    ended = crucible(name, "--help")
    assert ended.code == 0
    assert f"crucible {name}" in ended.out.partition("Examples:")[2]


def test_every_exit_code_is_documented() -> None:
    codes = [value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)]
    assert len(codes) >= 7
    for code in codes:
        assert f"| {code} |" in PAGE
