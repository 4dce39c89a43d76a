"""Prints what this machine measures and writes it to build/bench.json. Usage: run.py [--only NAME]"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]

import apiserver
import controller
import docker_runtime
import health
import operator_cluster
import process
from rows import Row, broken, save, table

import backbone
import bus
import cli
import egress

Measure = Callable[[], Awaitable[Row | list[Row]]]

MEASURES: dict[str, Measure] = {
    "process-cold-1": lambda: process.cold(1),
    "process-cold-20": lambda: process.cold(20),
    "process-cold-100": lambda: process.cold(100),
    "process-recovery": process.recovery,
    "docker-cold-100": docker_runtime.cold,
    "docker-recovery": docker_runtime.recovery,
    "docker-memory": docker_runtime.memory,
    "bus": bus.calls,
    "bus-flood": bus.flood,
    "bus-idle": bus.idle,
    "backbone": backbone.calls,
    "egress": egress.proxied,
    "probes": health.probes,
    "kill-to-ready": health.ready_again,
    "crash-loops": health.crash_loops,
    "controller": controller.footprint,
    "cli": cli.start,
    "apiserver": apiserver.requests,
    "operator-1000": apiserver.operator,
    "cluster-operator-1000": operator_cluster.footprint,
    "cluster-operator-10000": operator_cluster.many,
    "cluster-faults": operator_cluster.faults,
}


async def measure(only: str | None) -> list[Row]:
    """Run the measures, one after the other, and say which is under way."""
    rows: list[Row] = []
    for name, take in MEASURES.items():
        if only in {None, name}:
            print(f"measuring {name} …", file=sys.stderr, flush=True)
            found = await take()
            rows += found if isinstance(found, list) else [found]
    return rows


def main() -> int:
    """Measure and print; return 1 where something promised is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(MEASURES))
    rows = asyncio.run(measure(parser.parse_args().only))
    print(table(rows))
    save(rows, Path("build/bench.json"))
    missed = broken(rows)
    if missed:
        print(f"promised and not kept: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
