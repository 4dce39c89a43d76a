"""Reading quantities that any metrics server sends."""

from __future__ import annotations

from decimal import Decimal

import pytest

from crucible.cli import top
from crucible.cli.top import amount
from crucible.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("2", "2"), ("250m", "0.25"), ("1234567n", "0.001234567"), ("0.5", "0.5"), ("15u", "0.000015")),
        *(("20Mi", "20971520"), ("20480Ki", "20971520"), ("3k", "3000"), ("1Gi", "1073741824")),
    ],
)
def test_quantities_are_read(text: str, value: str) -> None:
    assert amount(text) == Decimal(value)


@pytest.mark.parametrize("words", ["{", "[1]", '"x"', '{"sent": 1}'])
def test_what_cannot_be_read_of_the_way_out_is_refused(words: str) -> None:
    with pytest.raises(InvalidInput):
        top._egress(words)


@pytest.mark.parametrize("text", ["", "Mi", "12Xi", "1e", "ten", "1mm"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        amount(text)
