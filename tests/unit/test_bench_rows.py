"""What a measurement fails on: what was promised and not kept, and nothing else."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[1] / "bench/rows.py"


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, by its path: a bench is no part of any package."""
    spec = importlib.util.spec_from_file_location("bench_rows", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_only_a_promise_that_is_not_kept_fails_a_run(rows: Any) -> None:
    taken = [
        rows.Row("kept", "µs", 4000.0, target=5000, promised=True),
        rows.Row("not kept", "µs", 6000.0, target=5000, promised=True),
        rows.Row("only told", "µs", 6000.0, target=5000),
        rows.Row("by ratio", "µs", 6.0, 2.0, target=2.0, promised=True),
    ]
    assert rows.broken(taken) == ["not kept", "by ratio"]
