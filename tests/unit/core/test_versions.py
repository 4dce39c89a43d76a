"""Which versions a range takes in."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crucible.core.versions import fits
from crucible.model.fields import RANGE_PATTERN

numbers = st.tuples(*(st.integers(0, 30) for _ in range(3)))


@pytest.mark.parametrize(
    ("wanted", "inside", "outside"),
    [
        ("*", ["0.0.1", "9.9.9", "1.0.0+build"], ["1.0.0-rc.1"]),
        (">=2,<3", ["2.0.0", "2.99.1"], ["1.9.9", "3.0.0", "3.0.0-rc.1", "2.1.0-rc.1"]),
        ("2", ["2.0.0", "2.7.3"], ["1.9.9", "3.0.0"]),
        ("=2.1", ["2.1.0", "2.1.9"], ["2.0.9", "2.2.0"]),
        ("1.4.2", ["1.4.2", "1.4.2+x"], ["1.4.3", "1.4.2-rc.1"]),
        ("!=1.4.2", ["1.4.3"], ["1.4.2"]),
        ("^1.4", ["1.4.0", "1.99.0"], ["1.3.9", "2.0.0"]),
        ("^0.3.1", ["0.3.1", "0.3.9"], ["0.3.0", "0.4.0"]),
        ("^0.0.3", ["0.0.3"], ["0.0.4", "0.0.2"]),
        ("~1.4.2", ["1.4.2", "1.4.9"], ["1.4.1", "1.5.0"]),
        ("~1", ["1.0.0", "1.9.0"], ["2.0.0"]),
        (">1.0.0, <=1.2.0", ["1.0.1", "1.2.0"], ["1.0.0", "1.2.1"]),
        (">=2.0.0-rc.2", ["2.0.0-rc.2", "2.0.0-rc.10", "2.0.0", "2.1.0"], ["2.0.0-rc.1", "2.1.0-rc.1"]),
        (">=1.0.0-alpha.1", ["1.0.0-alpha.beta", "1.0.0-beta"], ["1.0.0-alpha", "1.0.0-1"]),
    ],
)
def test_a_range_takes_in_what_it_says(wanted: str, inside: list[str], outside: list[str]) -> None:
    assert re.fullmatch(RANGE_PATTERN, wanted)
    assert [version for version in inside if not fits(version, wanted)] == []
    assert [version for version in outside if fits(version, wanted)] == []


@given(numbers, numbers, st.sampled_from(["<", ">=", "^", "~", "", "=", "!="]), st.integers(1, 3))
def test_whatever_matches_the_pattern_has_an_answer(
    version: tuple[int, ...], bound: tuple[int, ...], sign: str, given_parts: int
) -> None:
    wanted = sign + ".".join(map(str, bound[:given_parts]))
    assert re.fullmatch(RANGE_PATTERN, wanted)
    low = (*bound[:given_parts], 0, 0)[:3]
    found = fits(".".join(map(str, version)), wanted)
    if sign in {"^", "~", "", "="} and found:
        assert version >= low
    if sign == "<":
        assert found is (version < low)


@pytest.mark.parametrize("wanted", ["", "x", "1.2.3.4", ">=", "1 || 2", "^", ">=1,", "1" * 10, "1.0.0-"])
def test_what_is_no_range_does_not_match(wanted: str) -> None:
    assert not re.fullmatch(RANGE_PATTERN, wanted)
