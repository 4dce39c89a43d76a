"""The examples of types wasm and rune, run by the process runtime."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from harness import FIRST

from crucible.model.workload import Limits, Workload

if TYPE_CHECKING:
    from harness import ProcessHarness

IMAGES = Path(__file__).resolve().parents[2] / "plugin-images"
MIB = 1 << 20
LIMITS = Limits(cpu=1000, memory=96 * MIB, pids=8, disk=MIB, open_files=64)


def example(process: ProcessHarness, type_: str) -> Workload:
    """Return an example's workload, as its manifest has it."""
    folder = IMAGES / type_ / "example"
    spec: dict[str, Any] = yaml.safe_load((folder / "plugin.yaml").read_text())["spec"]
    files = {
        str(path.relative_to(folder / "src")): path.read_text()
        for path in (folder / "src").rglob("*")
        if path.is_file()
    }
    return replace(
        process.workload(name=f"{type_}-example"),
        type=spec["type"],
        entrypoint=tuple(spec["entrypoint"]),
        config=json.dumps(spec.get("config", {})),
        source=process.source(f"{type_}-example", files),
        limits=LIMITS,
    )


@pytest.mark.parametrize(
    ("type_", "line"),
    [
        ("wasm", b"9592 primes from 2 to 100002"),
        ("rune", b'turn 1: plugins.md has 3 headings: ["Plugins", "What they may do", "What they may not"]'),
    ],
)
async def test_the_example_runs_until_it_is_asked_to_stop(
    process: ProcessHarness, type_: str, line: bytes
) -> None:
    workload = example(process, type_)
    await process.runtime.start(workload, FIRST)
    await process.says(workload, line)
    await process.runtime.stop(workload.plugin_uid, FIRST)
    await process.until(workload, lambda one: not one.alive)


ENDLESS = {
    "wasm": ("main.wat", '(module (func (export "_start") (loop $l br $l)))'),
    "rune": ("main.rn", "pub fn main() { loop {} }"),
}


@pytest.mark.parametrize("type_", ENDLESS)
@pytest.mark.parametrize(("budget", "code"), [({"fuel": 1_000_000}, 71), ({"time": 0.2}, 73)])
async def test_a_budget_of_the_manifest_ends_the_program_inside(
    process: ProcessHarness, type_: str, budget: dict[str, Any], code: int
) -> None:
    name, text = ENDLESS[type_]
    source = process.source(f"endless-{type_}", {name: text})
    workload = replace(
        process.workload(), type=type_, entrypoint=(name,), source=source, limits=LIMITS, **budget
    )
    ended = await process.run(workload)
    assert ended.exit is not None
    assert ended.exit.code == code, await process.lines(workload)


@pytest.mark.parametrize(
    ("type_", "name", "text"),
    [
        (
            "wasm",
            "main.wat",
            """(module (memory (export "memory") 1) (func (export "_start")
                (loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable))""",
        ),
        ("rune", "main.rn", "pub fn main() { let kept = []; loop { kept.push([1, 2]); } }"),
    ],
)
async def test_a_program_meets_its_own_limit_of_memory_before_the_kernel_ends_it(
    process: ProcessHarness, type_: str, name: str, text: str
) -> None:
    source = process.source(f"bomb-{type_}", {name: text})
    workload = replace(process.workload(), type=type_, entrypoint=(name,), source=source, limits=LIMITS)
    ended = await process.run(workload)
    assert ended.exit is not None
    assert ended.exit.code == 72, await process.lines(workload)
