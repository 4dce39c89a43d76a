from __future__ import annotations

from typing import Any

import pytest
from build import identity, plugin

from crucible.core.admission import admit
from crucible.core.guest import host_flags
from crucible.core.render import render
from crucible.model.status import SourceReport

SOURCE = SourceReport(digest="sha256:1", resolved_for="")


def flags(**spec: Any) -> tuple[str, ...]:
    return host_flags(render(identity(), admit(plugin(**spec)), SOURCE))


def test_a_type_that_runs_by_itself_needs_none() -> None:
    assert flags(type="python", resources={"memory": "64Mi"}) == ()


@pytest.mark.parametrize(
    ("kind", "memory", "left"),
    [("wasm", "64Mi", 32), ("rune", "64Mi", 48), ("wasm", "40Mi", 10), ("rune", "8Mi", 2)],
)
def test_the_program_gets_what_its_host_leaves_of_the_memory(kind: str, memory: str, left: int) -> None:
    assert flags(type=kind, resources={"memory": memory}) == ("--memory", str(left << 20), "--")


def test_budgets_of_the_manifest_are_told_and_end_before_the_program() -> None:
    resources = {"memory": "64Mi", "fuel": 5, "time": "1500ms"}
    told = flags(type="rune", resources=resources)
    assert told == ("--fuel", "5", "--memory", str(48 << 20), "--time", "1.5", "--")
