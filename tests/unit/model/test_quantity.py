from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crucible.model import quantity


@pytest.mark.parametrize(
    ("text", "amount"),
    [("0", 0), ("1048576", 2**20), ("500k", 500_000), ("64Mi", 64 * 2**20), ("2G", 2 * 10**9), (7, 7)],
)
def test_bytes_are_read_with_binary_and_decimal_suffixes(text: str | int, amount: int) -> None:
    assert quantity.parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "64Q", "-1", "1.5Mi", "64 Mi", "64mi", True, "1" * 16, "٣Mi", "1\n"])
def test_what_is_no_amount_of_bytes_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write a number like 64Mi"):
        quantity.parse_bytes(text)


@pytest.mark.parametrize(("text", "thousandths"), [("250m", 250), ("2", 2000), (0.5, 500), ("1.125", 1125)])
def test_cpu_is_read_in_thousandths(text: str | float, thousandths: int) -> None:
    assert quantity.parse_cpu(text) == thousandths


@pytest.mark.parametrize("text", ["", "m", "0.0001", "1e3", True, "-1", "nan"])
def test_what_is_no_amount_of_cpu_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write 500m"):
        quantity.parse_cpu(text)


@pytest.mark.parametrize(("text", "seconds"), [("0s", 0.0), ("500ms", 0.5), ("1m30s", 90.0), ("1h", 3600.0)])
def test_durations_add_up(text: str, seconds: float) -> None:
    assert quantity.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "5 s", "s", "1d", 10, "-1s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write 500ms"):
        quantity.parse_duration(text)


@given(st.integers(min_value=0, max_value=10**15 - 1))
def test_formatted_bytes_read_back_the_same(amount: int) -> None:
    assert quantity.parse_bytes(quantity.format_bytes(amount)) == amount


@given(st.integers(min_value=0, max_value=999_000))
def test_formatted_cpu_reads_back_the_same(thousandths: int) -> None:
    assert quantity.parse_cpu(quantity.format_cpu(thousandths)) == thousandths


@given(st.integers(min_value=0, max_value=86_400_000))
def test_formatted_durations_read_back_the_same(milliseconds: int) -> None:
    text = quantity.format_duration(milliseconds / 1000)
    assert quantity.parse_duration(text) == pytest.approx(milliseconds / 1000)
