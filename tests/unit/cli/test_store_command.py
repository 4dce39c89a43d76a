"""What ``crucible store`` shows a person."""

from __future__ import annotations

import pytest

from crucible.cli.store import for_terminal


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"7", b"7\n"),
        (b"two\nlines\n", b"two\nlines\n"),
        (b"\x1b[31mred\r", b"\\x1b[31mred\\r\n"),
        (b"\xff", "\ufffd\n".encode()),
        (b"", b"\n"),
    ],
)
def test_a_value_harms_no_terminal(value: bytes, shown: bytes) -> None:
    assert for_terminal(value) == shown
