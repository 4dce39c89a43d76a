"""Tables, lengths of time, and text made harmless."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crucible.cli.table import span, table, width
from crucible.cli.terminal import colourful, harmless, one_line, paint


def test_columns_stand_two_spaces_apart_and_no_line_ends_in_blanks() -> None:
    assert table([("NAME", "PHASE"), ("a-long-name", ""), ("b", "Running")]) == [
        "NAME         PHASE",
        "a-long-name",
        "b            Running",
    ]


def test_wide_characters_count_for_two_and_combining_ones_for_none() -> None:
    assert width("日本") == 4
    assert width("e\u0301") == 1
    assert table([("日本", "x"), ("ab", "y")]) == ["日本  x", "ab    y"]


def test_a_cell_cannot_break_out_of_its_line() -> None:
    assert table([("A", "B"), ("x\ny\x1b[2J", "z")])[1] == r"x y\x1b[2J  z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (190, "3m10s"), (3600, "1h"), (18120, "5h2m"),
     (86400, "1d"), (90000, "1d1h"), (864000, "10d"), (8640000, "100d")],
)  # fmt: skip
def test_lengths_of_time_are_short(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\rb", r"a\rb"),
        ("\x9b31m", r"\x9b31m"),
        ("user\u202egpj.exe", r"user\u202egpj.exe"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("grüße 😀", "grüße 😀"),
    ],
)
def test_what_could_move_a_cursor_is_spelled_out(text: str, shown: str) -> None:
    assert harmless(text) == shown


@given(st.text())
def test_harmless_text_is_printable_or_a_blank(text: str) -> None:
    assert "\x1b" not in harmless(text)
    assert len(one_line(text).splitlines()) <= 1
    harmless(text).encode()


def test_colour_only_reaches_a_terminal_that_wants_it() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert colourful(Terminal(), {})
    assert not colourful(Terminal(), {"NO_COLOR": "1"})
    assert not colourful(Terminal(), {"TERM": "dumb"})
    assert not colourful(io.StringIO(), {})
    assert paint("x", "red", on=False) == "x"
