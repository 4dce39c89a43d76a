"""The controller's own log: what it quotes cannot act on a terminal."""

from __future__ import annotations

import json
import logging

import pytest

from crucible.telemetry import logs


@pytest.mark.parametrize("kind", ["text", "json"])
def test_control_characters_are_spelled_out(kind: logs.Format, capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:]
    try:
        logs.configure(kind, verbose=False)
        logging.getLogger("test").warning("refused: \x1b[2J\u202e é")
    finally:
        logging.getLogger().handlers[:] = before
    line = capsys.readouterr().err
    assert "\x1b" not in line
    assert "\u202e" not in line
    assert "é" in (json.loads(line)["message"] if kind == "json" else line)
