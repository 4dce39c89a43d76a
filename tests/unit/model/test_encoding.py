from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crucible.model.encoding import decoded, encoded

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_encoded_says_the_same_whoever_reads_it(value: object) -> None:
    assert decoded(encoded(value)) == json.loads(encoded(value)) == value


def test_half_of_a_surrogate_pair_goes_there_and_back() -> None:
    assert decoded(encoded({"message": "\ud800"})) == {"message": "\ud800"}


def nested(levels: int) -> object:
    value: object = []
    for _ in range(levels):
        value = [value]
    return value


def test_what_is_nested_deeper_than_the_fast_encoder_goes_is_encoded_all_the_same() -> None:
    assert decoded(encoded(nested(300))) == nested(300)


def test_what_is_nested_without_end_is_refused() -> None:
    with pytest.raises(RecursionError):
        encoded(nested(100_000))


def test_what_is_no_json_is_refused() -> None:
    for text in (b"", b"{", b"nonsense", b'{"a": 1} {"b": 2}'):
        with pytest.raises(ValueError, match=r"."):
            decoded(text)
