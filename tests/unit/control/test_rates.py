"""Usage as PodMetrics: rates of two looks, made when asked."""

from __future__ import annotations

from typing import Any

from crucible.cli import top
from crucible.control.rates import Rates
from crucible.model.usage import Traffic, Usage
from crucible.model.workload import Limits, Slot, Workload
from crucible.runtimes.fake import FakeHost, FakeRuntime

SLOT = Slot(0, 1)
MIB = 1 << 20
WORKLOAD = Workload(
    *("default", "echo", "uid-echo", "python", ("main.py",), (), "{}", "sha256:0"),
    limits=Limits(cpu=500, memory=64 * MIB, pids=32, disk=MIB, open_files=64),
    isolation="process",
    grace=5.0,
    restart="",
)


def used(at: float, cpu: float) -> Usage:
    return Usage(at=at, cpu=cpu, memory=20 * MIB, memory_peak=30 * MIB, pids=2, throttled=0.25)


class Scene:
    """A runtime whose usage is what it is told, and the pauses that were made."""

    def __init__(self) -> None:
        self.host = FakeHost()
        self.runtime = FakeRuntime(self.host)
        self.next: list[Usage | None] = []
        self.paused: list[float] = []
        self.rates = Rates(self.runtime, self.pause)

    async def pause(self, seconds: float) -> None:
        self.paused.append(seconds)
        self.host.usage = self.next.pop(0)

    async def ask(self) -> list[dict[str, Any]]:
        return await self.rates.of(self.runtime.instances())


async def test_what_went_out_is_said_of_the_plugin_as_a_whole() -> None:
    scene = Scene()

    async def traffic() -> dict[str, Traffic]:
        return {"uid-echo": Traffic(sent=10, received=20, connections=3, open=1, denied=2)}

    scene.rates.traffic = traffic
    await scene.runtime.start(WORKLOAD, SLOT)
    scene.host.usage, scene.next = used(10.0, 1.0), [used(11.0, 1.25)]
    (found,) = await scene.ask()
    (facts,) = [top._facts(found)]
    assert facts["egress"] == {"sent": 10, "received": 20, "allowed": 3, "open": 1, "denied": 2}


async def test_the_first_who_asks_waits_for_a_second_look() -> None:
    scene = Scene()
    await scene.runtime.start(WORKLOAD, SLOT)
    scene.host.usage, scene.next = used(10.0, 1.0), [used(11.0, 1.25)]
    (found,) = await scene.ask()
    assert scene.paused == [1.0]
    assert found["window"] == "1.000s"
    assert found["metadata"]["name"] == "echo-0-1"
    assert found["metadata"]["labels"]["crucible.dev/plugin"] == "echo"
    assert found["containers"] == [
        {
            "name": "plugin",
            "usage": {
                "cpu": "250000000n",
                "memory": "20480Ki",
                "crucible.dev/memory-peak": "30720Ki",
                "crucible.dev/cpu-seconds": "1250m",
                "crucible.dev/throttled-seconds": "250m",
                "crucible.dev/pids": "2",
            },
        }
    ]


async def test_who_asks_soon_after_is_served_by_what_was_seen_then() -> None:
    scene = Scene()
    await scene.runtime.start(WORKLOAD, SLOT)
    scene.host.usage, scene.next = used(10.0, 1.0), [used(11.0, 1.25)]
    await scene.ask()
    scene.host.usage = used(21.0, 6.25)
    (found,) = await scene.ask()
    assert (found["window"], found["containers"][0]["usage"]["cpu"]) == ("10.000s", "500000000n")
    assert len(scene.paused) == 1


async def test_a_look_from_long_ago_says_nothing_about_now() -> None:
    scene = Scene()
    await scene.runtime.start(WORKLOAD, SLOT)
    scene.host.usage, scene.next = used(10.0, 1.0), [used(11.0, 1.0), used(1001.0, 900.0)]
    await scene.ask()
    scene.host.usage = used(1000.0, 900.0)
    (found,) = await scene.ask()
    assert found["containers"][0]["usage"]["cpu"] == "0n"
    assert len(scene.paused) == 2


async def test_what_ended_or_is_not_counted_is_left_out() -> None:
    scene = Scene()
    await scene.runtime.start(WORKLOAD, SLOT)
    assert await scene.ask() == []
    assert scene.paused == []
    scene.host.usage, scene.next = used(10.0, 1.0), [None]
    assert await scene.ask() == []
    scene.host.usage = used(10.0, 1.0)
    scene.host.crash("uid-echo", SLOT, code=1)
    assert await scene.ask() == []
