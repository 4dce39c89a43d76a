"""What a plugin may do on the bus and what not: every capability, subject and service, by a raw client."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from raw import Raw, words
from sandboxless import until

from crucible.bus.wire import Frame, Kind
from crucible.model.bus import Grants
from crucible.model.door import Door, Doorway

if TYPE_CHECKING:
    from conftest import Bus

PATTERNS = ("a", "a.b", "a.*", "a.>", "*", "*.b", ">")
SUBJECTS = ("a", "b", "a.b", "a.c", "a.b.c", "crucible.events.a.b")
MATCHES = {
    "a": {"a"},
    "a.b": {"a.b"},
    "a.*": {"a.b", "a.c"},
    "a.>": {"a.b", "a.c", "a.b.c"},
    "*": {"a", "b"},
    "*.b": {"a.b"},
    ">": {"a", "b", "a.b", "a.c", "a.b.c"},
}
"""Of these subjects, those that a grant of a pattern lets somebody publish to: written down, not computed."""
METHODS = ("one.m", "one.n", "two.m")
CALLS = {"one.m": {"one.m"}, "one.*": {"one.m", "one.n"}, "two.m": {"two.m"}, "two.n": set()}


async def refused(client: Raw, frame: Frame) -> bool:
    """Say whether a frame is refused as not permitted; whatever else comes is permission."""
    answer = await client.ask(frame)
    assert answer.id == frame.id
    return answer.kind == Kind.ERROR and answer.name == "NotPermitted"


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_of_each_subject_exactly_what_is_granted_may_be_published(bus: Bus, pattern: str) -> None:
    client = await bus.add("one", publish=(pattern,))
    idents = itertools.count(1, 2)
    allowed = {
        name for name in SUBJECTS if not await refused(client, Frame(Kind.PUBLISH, next(idents), name))
    }
    assert allowed == MATCHES[pattern]
    assert bus.faults("one") == {"refused": len(SUBJECTS) - len(allowed)}


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_of_each_subject_exactly_what_is_granted_may_be_subscribed_to(bus: Bus, pattern: str) -> None:
    client = await bus.add("one", subscribe=(pattern,))
    idents = itertools.count(1, 2)
    allowed = {
        name for name in SUBJECTS if not await refused(client, Frame(Kind.SUBSCRIBE, next(idents), name))
    }
    own = {"crucible.events.a.b"} if pattern == ">" else set()
    assert allowed == MATCHES[pattern] | own
    for wider in ("*.*", ">", "*"):
        inside = pattern in {wider, ">"}
        assert await refused(client, Frame(Kind.SUBSCRIBE, next(idents), wider)) != inside, wider


@pytest.mark.parametrize("granted", CALLS)
async def test_of_each_method_exactly_what_is_granted_may_be_called(bus: Bus, granted: str) -> None:
    for name in ("one", "two"):
        await bus.add(name)  # offers nothing: a permitted call is answered at once
    client = await bus.add("asker", call=(granted,))
    idents = itertools.count(1, 2)
    allowed = {name for name in METHODS if not await refused(client, Frame(Kind.CALL, next(idents), name))}
    assert allowed == CALLS[granted]


async def test_who_is_granted_nothing_may_do_nothing_but_ask_whether_the_broker_is_there(bus: Bus) -> None:
    await bus.add("one", "m")
    client = await bus.add("nobody")
    idents = itertools.count(1, 2)
    frames = [
        *(Frame(Kind.PUBLISH, 1, name) for name in SUBJECTS),
        *(Frame(Kind.SUBSCRIBE, 1, name) for name in (*SUBJECTS, *PATTERNS)),
        *(
            Frame(Kind.CALL, 1, name)
            for name in (*METHODS, "$host.open", "nobody.m", "$controller.m", "$bus.x")
        ),
        Frame(Kind.CALL, 1, "$bus.machines"),
    ]
    for frame in frames:
        assert await refused(client, frame._replace(id=next(idents))), frame
    assert words(await client.call(next(idents), "$bus.ping"))[0] == "ANSWER"


async def test_a_socket_of_a_deleted_plugin_does_not_speak_for_the_next_one_of_its_name(bus: Bus) -> None:
    """Whoever kept the old one's socket, or a copy of its path, is nobody: the uid is another."""
    old = bus.plugin("notes", call=("asked.m",))
    await bus.add("asked", "m")
    key = "here/notes"
    bus.members[key] = replace(bus.members[key], uid="uid-of-another-notes", grants=Grants(call=("asked.m",)))
    bus.broker.update(bus.members.values())
    client = await Raw.connect(old)
    client.send(Frame(Kind.HELLO, payload=b'{"wire":[1]}'))
    assert words((await client.gone())[-1]) == ("ERROR", 0, "Unavailable")
    new = bus.open(Doorway(Door.BUS, "here", "notes", "uid-of-another-notes", "0-1"))
    assert (await bus.join(new)).writer is not None


async def test_what_was_recorded_of_another_connection_is_worth_nothing(bus: Bus) -> None:
    """All that a plugin ever said, said again through another's socket, is that other one's word."""
    asked = await bus.add("asked", "m")
    bus.plugin("trusted", call=("asked.m",), publish=("news",))
    thief = await bus.add("thief")
    recorded = [Frame(Kind.CALL, 1, "asked.m", b"open"), Frame(Kind.PUBLISH, 3, "news")]
    for frame in recorded:
        assert await refused(thief, frame)
    thief.send(Frame(Kind.HELLO, payload=b'{"wire":[1],"plugin":"trusted"}'))
    await thief.gone()
    assert words(await asked.call(1, "$bus.ping")) == ("ANSWER", 1, ""), "it was asked nothing"
    await until(lambda: bus.faults("thief") == {"refused": 2, "malformed": 1})
