"""Priorities at a broker that has more to do than it can: urgent first, and nobody starves."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from crucible.bus import wire
from crucible.bus.queue import ROUND, WEIGHTS
from crucible.bus.wire import Frame, Kind, Priority

if TYPE_CHECKING:
    from raw import Raw

    from conftest import Bus

EACH = 300
CONNECTIONS = 4
BEGINNING = 200
"""Frames until all of them stand in line: the first are handled as they come in."""


async def saturate(bus: Bus) -> list[int]:
    """Have more of every priority said at once than the broker takes in one go; return who was heard when."""
    listener = await bus.add("listener", subscribe=("said.*",))
    await listener.ask(Frame(Kind.SUBSCRIBE, 1, "said.*"))
    writers: list[tuple[Raw, bytes]] = []
    for priority in Priority:
        path = bus.plugin(f"sender{priority.value}", publish=("said.*",))
        said = wire.encode(Frame(Kind.PUBLISH, 0, f"said.{priority.value}", priority=priority))
        writers += [(await bus.join(path), said * EACH) for _ in range(CONNECTIONS)]
    for client, data in reversed(writers):  # the least urgent is there first
        client.writer.write(data)
    heard = []
    while len(heard) < len(writers) * EACH:
        heard.append(int((await listener.next()).name.partition(".")[2]))
    return heard


async def test_under_saturation_each_priority_gets_its_share_and_low_one_in_fifteen(bus: Bus) -> None:
    """The guarantee of docs/bus.md, at the broker: whatever the others do, low gets 1/15."""
    heard = await saturate(bus)
    until_critical_is_done = len(heard) - heard[::-1].index(Priority.CRITICAL)
    stretch = heard[BEGINNING:until_critical_is_done]
    got = Counter(stretch)
    for priority, weight in zip(Priority, WEIGHTS, strict=True):
        share = got[priority.value] / len(stretch)
        assert 0.75 * weight / ROUND <= share <= 1.25 * weight / ROUND, (priority, got)
    for begin in range(0, len(stretch) - 4 * ROUND, ROUND):
        window = Counter(stretch[begin : begin + 4 * ROUND])
        assert all(window[priority.value] for priority in Priority), "somebody waited for four rounds"


async def test_the_urgent_overtake_what_waits_for_a_client_that_reads_slowly(bus: Bus) -> None:
    slow = await bus.add("slow", subscribe=("said",))
    await slow.ask(Frame(Kind.SUBSCRIBE, 1, "said"))
    writer = await bus.add("writer", publish=("said",))
    slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for number in range(30):
        await writer.ask(Frame(Kind.PUBLISH, 2 * number + 1, "said", b"x" * 50_000, priority=Priority.LOW))
    await writer.ask(Frame(Kind.PUBLISH, 99, "said", b"now", priority=Priority.CRITICAL))
    slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
    heard = [len((await slow.next()).payload) for _ in range(31)]
    assert heard.index(3) < 30, "it came last"
    assert heard.count(50_000) == 30


async def test_each_plugin_gets_as_much_as_every_other_however_many_connections_it_has(bus: Bus) -> None:
    listener = await bus.add("listener", subscribe=("said.*",))
    await listener.ask(Frame(Kind.SUBSCRIBE, 1, "said.*"))
    writers = []
    for name, connections in (("flooder", 8), ("other", 1)):
        path = bus.plugin(name, publish=("said.*",))
        said = wire.encode(Frame(Kind.PUBLISH, 0, f"said.{name}")) * EACH
        writers += [(await bus.join(path), said) for _ in range(connections)]
    for client, data in writers:
        client.writer.write(data)
    heard = [(await listener.next()).headers["from"] for _ in range(len(writers) * EACH)]
    stretch = heard[BEGINNING : len(heard) - heard[::-1].index("other")]
    share = stretch.count("other") / len(stretch)
    assert 0.4 < share < 0.6


async def test_who_writes_much_to_a_slow_reader_keeps_no_other_from_being_heard(bus: Bus) -> None:
    slow = await bus.add("slow", subscribe=("said",))
    await slow.ask(Frame(Kind.SUBSCRIBE, 1, "said"))
    flooder, other = await bus.add("flooder", publish=("said",)), await bus.add("other", publish=("said",))
    slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for number in range(30):
        await flooder.ask(Frame(Kind.PUBLISH, 2 * number + 1, "said", b"x" * 50_000))
    await other.ask(Frame(Kind.PUBLISH, 1, "said", b"now"))
    slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
    heard = [(await slow.next()).headers["from"] for _ in range(31)]
    assert heard.index("other") < 30, "it came last"
