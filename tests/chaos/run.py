"""``make chaos``: many seeded runs, a table, ``build/chaos.json``; then a long life with churn."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

import engine as engines
from dock import Dock
from fleet import Fleet
from lifetime import Life, live
from machine import Machine
from ordeal import RUNS_OF_A_LIFE, ground_of
from soak import soak

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from places import Place
    from trial import Result

REPOSITORY = HERE.parents[1]
_WIDTHS = (5, 9, 9, 11, 9, 6)


def main() -> int:
    """Run all that was asked for; return 0 where nothing was wrong."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="crucible-chaos-") as folder:
        return asyncio.run(_run(options, Path(folder)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="how many runs")
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same plans")
    parser.add_argument("--on", default="", help="process, docker or cluster: only runs on that")
    parser.add_argument("--soak", default="", help="for how long to soak afterwards: 30m, 90s")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build/chaos.json")
    return parser.parse_args()


async def _run(options: argparse.Namespace, folder: Path) -> int:
    begun = time.monotonic()
    results: list[Result] = []
    _row("run", "on", "faults", "converged", "wrong", "")
    with contextlib.ExitStack() as stack:
        engine = _Engine(stack)
        for first in range(0, options.runs, RUNS_OF_A_LIFE):
            ground = options.on or ground_of(first)
            numbers = range(first, min(first + RUNS_OF_A_LIFE, options.runs))
            place = _place(ground, _fresh(folder, f"life{first}"), folder / "roots", engine)
            if place is None:
                continue
            found = await live(place, Life(ground, options.seed, numbers), _tell)
            results += found
            _write(options.out, summary_of(results))  # of all so far, should someone end this early
            for result in found:
                _explain(result, place)
    summary = summary_of(results)
    if options.soak:
        summary["soak"] = await soak(_fresh(folder, "soak"), folder / "roots", seconds_of(options.soak))
    _write(options.out, summary)
    print(json.dumps(summary))
    print(f"{time.monotonic() - begun:.0f} s in all; written to {options.out}")
    soaked = summary.get("soak", {})
    return int(bool(summary["duplicates"] or summary["orphans"] or summary["lost"] or soaked.get("problems")))


def _write(path: Path, summary: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(summary, indent=2) + "\n")


class _Engine:
    """One Docker engine for all lives that need one, started with the first."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._engine: engines.Engine | None = None

    def get(self) -> engines.Engine:
        if self._engine is None:
            self._engine = self._stack.enter_context(engines.private_engine("--live-restore"))
            engines.load_images(self._engine, "python")
        return self._engine


def _place(ground: str, folder: Path, roots: Path, engine: _Engine) -> Place | None:
    match ground:
        case "process":
            return Machine(folder, roots)
        case "cluster":
            return Fleet(folder)
        case _:
            why = engines.missing()
            if why:
                print(f"  left out: {why}")
                return None
            return Dock(folder, roots, engine.get())


def _fresh(folder: Path, name: str) -> Path:
    place = folder / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return place


def summary_of(results: Sequence[Result]) -> dict[str, Any]:
    """Return the figures of all runs."""
    times = sorted(result.converged for result in results)
    return {
        "runs": len(results),
        "faults": sum(len(result.plan.faults) for result in results),
        "duplicates": sum(len(result.duplicates) for result in results),
        "orphans": sum(len(result.orphans) for result in results),
        "lost": sum(len(result.lost) for result in results),
        "converge_p50_s": round(_at(times, 0.50), 2),
        "converge_p99_s": round(_at(times, 0.99), 2),
    }


def _at(ordered: Sequence[float], part: float) -> float:
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0


def seconds_of(text: str) -> float:
    """Read ``90s``, ``30m`` or ``2h``."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    return float(text[:-1]) * units[text[-1]]


def _tell(result: Result) -> None:
    names = ", ".join(step.what for step in result.plan.faults)
    counts = f"{len(result.duplicates)}/{len(result.orphans)}/{len(result.lost)}"
    _row(
        str(result.plan.number),
        result.plan.ground,
        str(len(result.plan.faults)),
        f"{result.converged:.1f} s",
        counts,
        names,
    )


def _explain(result: Result, place: Place) -> None:
    if result.wrong:
        print(f"run {result.plan.number} of seed {result.plan.seed} on {result.plan.ground}:")
        for line in result.wrong[:40]:
            print(f"  {line}")
        kept = REPOSITORY / f"build/chaos-{result.plan.ground}-{result.plan.number}.log"
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(place.log())
        print(f"  the log is in {kept}")


def _row(*cells: str) -> None:
    widths: Iterator[int] = iter(_WIDTHS)
    print("  ".join(cell.ljust(next(widths, 0)) for cell in cells).rstrip(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
