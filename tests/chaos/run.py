"""``make chaos``: many seeded runs, a table, ``build/chaos.json``; then a long life with churn."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import shutil
import signal
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
from records import Book, record_of, summary_of
from soak import soak

if TYPE_CHECKING:
    from collections.abc import Iterator

    from places import Place
    from trial import Result

REPOSITORY = HERE.parents[1]
_WIDTHS = (5, 9, 9, 11, 9, 6)


def main() -> int:
    """Run all that was asked for; return 0 where nothing was wrong, 128 and the signal's number after one."""
    options, told = _options(), Interruption()
    with tempfile.TemporaryDirectory(prefix="crucible-chaos-") as folder:
        try:
            return asyncio.run(_run(options, Path(folder), told))
        except asyncio.CancelledError:
            print("all that it had made is cleared away", file=sys.stderr)
            return 128 + told.number


class Interruption:
    """Ctrl-C, or being asked to end: clears away all that was made, however often it comes.

    Attributes:
        number: the signal that came first; 0 where none did.
    """

    def __init__(self) -> None:
        self.number = 0

    def listen(self) -> None:
        """Have the task that calls this cancelled by a signal, but for those that are ignored."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._come, number, task)

    def _come(self, number: int, task: asyncio.Task[int]) -> None:
        if not self.number:
            self.number = number
            task.cancel()
        print("interrupted: clearing away all that was made", file=sys.stderr)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="how many runs")
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same plans")
    parser.add_argument("--on", default="", help="process, docker or cluster: every run on that")
    parser.add_argument("--only", default="", help="process,cluster: leave out, this time, what is on others")
    parser.add_argument("--resume", action="store_true", help="do not repeat what went well before")
    parser.add_argument("--within", type=seconds_of, default=math.inf, help="begin nothing later: 5m")
    parser.add_argument("--soak", type=seconds_of, default=0.0, help="how long to soak afterwards: 30m, 90s")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build/chaos.json")
    return parser.parse_args()


async def _run(options: argparse.Namespace, folder: Path, told: Interruption) -> int:
    told.listen()
    begun = time.monotonic()
    book = Book(options.out.with_name(f"{options.out.stem}-{options.seed}.jsonl"), go_on=options.resume)
    soaked = _soaked_before(options.out) if options.resume else {}
    _row("run", "on", "faults", "converged", "wrong", "")
    with contextlib.ExitStack() as stack:
        engine = _Engine(stack)
        for life in _lives(options, book):
            if time.monotonic() - begun > options.within:
                break
            place = _place(life.ground, _fresh(folder, f"life{life.numbers[0]}"), folder / "roots", engine)
            if place is None:
                continue
            found = await live(place, life, _tell)
            book.enter(map(record_of, found))
            _write(options.out, summary_of(book.records.values()) | soaked)  # should someone end this early
            for result in found:
                _explain(result, place)
    if options.soak:
        soaked = {"soak": await soak(_fresh(folder, "soak"), folder / "roots", options.soak)}
    summary = summary_of(book.records.values()) | soaked
    _write(options.out, summary)
    print(json.dumps(summary))
    print(f"{time.monotonic() - begun:.0f} s in all; written to {options.out}")
    wrong = summary["duplicates"] or summary["orphans"] or summary["lost"]
    return int(bool(wrong or summary.get("soak", {}).get("problems")))


def _lives(options: argparse.Namespace, book: Book) -> Iterator[Life]:
    """Return what is still to be done."""
    for first in range(0, options.runs, RUNS_OF_A_LIFE):
        ground = options.on or ground_of(first)
        numbers = range(first, min(first + RUNS_OF_A_LIFE, options.runs))
        if ground in (options.only or ground).split(",") and not book.has(ground, numbers):
            yield Life(ground, options.seed, numbers)


def _soaked_before(path: Path) -> dict[str, Any]:
    written = json.loads(path.read_text()) if path.exists() else {}
    return {"soak": written["soak"]} if "soak" in written else {}


def _write(path: Path, summary: dict[str, Any]) -> None:
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
