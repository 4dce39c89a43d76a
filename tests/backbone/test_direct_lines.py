"""Direct lines between brokers: what goes by them, what falls with them, what the server carries on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from backboned import ALL, until
from raw import words

from crucible.bus import directlines, wire
from crucible.bus.wire import Frame, Kind
from crucible.model.backbone import Share

if TYPE_CHECKING:
    import pytest
    from backboned import Joined
    from raw import Raw

    from conftest import Pair
    from crucible.bus.directline import DirectLine


def cut(machine: Joined, other: str) -> None:
    """Cut a line as a cable is cut."""
    line = machine.far.lines._standing[other]
    assert line._transport is not None
    line._transport.abort()


async def echo(client: Raw) -> None:
    while True:
        frame = await client.next()
        if frame.kind == Kind.CALL:
            client.send(Frame(Kind.ANSWER, frame.id, payload=frame.payload))


async def speakers(pair: Pair) -> tuple[Raw, Raw]:
    tokenizer = await pair.beta.add("tokenizer", "split", "hold")
    notes = await pair.alpha.add("notes", call=("tokenizer.*",))
    await until(lambda: pair.alpha.sees("beta", "tokenizer"))
    return notes, tokenizer


async def test_calls_go_by_the_line_both_ways_and_say_who_calls(pair: Pair) -> None:
    await pair.meet_directly()
    notes, tokenizer = await speakers(pair)
    other = await pair.alpha.add("tokenizer", "split")  # the same name there: who is here is asked first
    caller = await pair.beta.add("reader", call=("indexer.run",))
    pair.alpha.far.become(pair.backbone.joining("alpha", Share("here", ("*",), ("indexer.*",)), line=0))
    indexer = await pair.alpha.add("indexer", "run")
    await until(lambda: pair.beta.sees("alpha", "indexer"))
    assert other is not None
    caller.send(Frame(Kind.CALL, 1, "indexer.run", b"there", {"trace": "t"}, 1, 5000))
    asked = await indexer.next()
    assert (asked.payload, asked.headers, asked.priority) == (
        b"there",
        {"trace": "t", "from": "reader@beta"},
        1,
    )
    assert 0 < asked.deadline <= 5000
    assert pair.alpha.far._peers["beta"].line is not None
    assert pair.alpha.far._peers["beta"].line.served == 1
    assert pair.alpha.far._peers["beta"].server.served == 0
    indexer.send(Frame(Kind.ANSWER, asked.id, payload=b"y", headers={"kind": "k"}))
    answer = await caller.next()
    assert (answer.payload, answer.headers) == (b"y", {"kind": "k"})
    assert notes is not None
    assert tokenizer is not None


async def test_streams_credit_cancellation_and_large_frames_go_by_the_line(pair: Pair) -> None:
    await pair.meet_directly()
    notes, tokenizer = await speakers(pair)
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split", flags=wire.STREAM), wire.credit(1, 2))
    asked = await tokenizer.next()
    granted = await tokenizer.next()
    assert (granted.kind, wire.credit_of(granted)) == (Kind.CREDIT, 2)
    large = b"x" * wire.PAYLOAD_LIMIT
    for _ in range(2):
        tokenizer.send(Frame(Kind.ITEM, asked.id, payload=large))
        item = await notes.next()
        assert (item.kind, item.payload) == (Kind.ITEM, large)
    tokenizer.send(Frame(Kind.ITEM, asked.id, payload=b"without credit"))
    assert words(await notes.next()) == ("ERROR", 1, "Overloaded")
    assert (await tokenizer.next()).kind in {Kind.CANCEL, Kind.ERROR}
    notes.send(Frame(Kind.CALL, 3, "tokenizer.hold"))
    held = await tokenizer.next()
    notes.send(Frame(Kind.CANCEL, 3))
    assert words(await tokenizer.next()) == ("CANCEL", held.id, "")
    assert words(await notes.next()) == ("ERROR", 3, "Cancelled")
    notes.send(Frame(Kind.CALL, 5, "tokenizer.hold", deadline=1500))
    await tokenizer.next()
    assert words(await notes.next()) == ("ERROR", 5, "DeadlineExceeded")
    await until(lambda: not pair.beta.broker.inbound.total and not pair.alpha.broker.inbound.total)


async def test_when_the_line_is_cut_what_went_by_it_fails_at_once_and_the_next_call_goes_on(
    pair: Pair,
) -> None:
    await pair.meet_directly()
    notes, tokenizer = await speakers(pair)
    held = [
        Frame(Kind.CALL, ident, "tokenizer.hold", b"x" * 2000, deadline=60_000) for ident in range(1, 121, 2)
    ]
    notes.send(*held)
    for _ in held:
        assert (await tokenizer.next()).name == "hold"
    cut(pair.alpha, "beta")
    ended = [await notes.next() for _ in held]
    assert {(frame.kind, frame.name) for frame in ended} == {(Kind.ERROR, "Unavailable")}
    assert {frame.id for frame in ended} == {frame.id for frame in held}
    assert {(await tokenizer.next()).kind for _ in held} == {Kind.CANCEL}
    serving = asyncio.create_task(echo(tokenizer))
    assert (await notes.call(201, "tokenizer.split", b"on")).payload == b"on"
    await pair.lined()
    assert (await notes.call(203, "tokenizer.split", b"again")).payload == b"again"
    serving.cancel()


async def test_a_call_is_done_once_at_most_though_lines_are_cut_again_and_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directlines, "_RETRY_LONGEST", 0.05)  # one that falls so often is let rest
    await pair.meet_directly()
    notes, tokenizer = await speakers(pair)
    done: list[bytes] = []

    async def do() -> None:
        while True:
            frame = await tokenizer.next()
            if frame.kind == Kind.CALL:
                done.append(frame.payload)
                tokenizer.send(Frame(Kind.ANSWER, frame.id, payload=frame.payload))

    doing = asyncio.create_task(do())
    answered: set[bytes] = set()
    unanswered: set[bytes] = set()
    ident = 1
    for turn in range(8):
        calls = [
            Frame(Kind.CALL, ident + 2 * n, "tokenizer.split", b"%d" % (ident + 2 * n)) for n in range(100)
        ]
        ident += 200
        notes.send(*calls[:50])
        for machine, other in ((pair.alpha, "beta"), (pair.beta, "alpha")):
            if turn % 2 == (machine is pair.alpha) and machine.directly(other):
                cut(machine, other)
        notes.send(*calls[50:])
        for _ in calls:
            frame = await notes.next()
            name = b"%d" % frame.id
            assert frame.kind == Kind.ANSWER or frame.name in {"Unavailable", "NoSuchPlugin"}, frame
            (answered if frame.kind == Kind.ANSWER else unanswered).add(name)
        await pair.lined()
    await until(lambda: answered <= set(done))
    assert len(done) == len(set(done))
    assert answered
    assert not answered & unanswered
    doing.cancel()


async def test_what_goes_through_the_server_when_a_line_comes_up_ends_there(pair: Pair) -> None:
    await pair.meet()
    notes, tokenizer = await speakers(pair)
    notes.send(Frame(Kind.CALL, 1, "tokenizer.hold", b"by the server"))
    held = await tokenizer.next()
    await pair.meet_directly()
    peer = pair.alpha.far._peers["beta"]
    assert peer.line is not None
    assert (peer.server.made, peer.line.made) == (1, 0)
    notes.send(Frame(Kind.CALL, 3, "tokenizer.split", b"by the line"))
    asked = await tokenizer.next()
    assert (peer.server.made, peer.line.made) == (1, 1)
    tokenizer.send(Frame(Kind.ANSWER, held.id), Frame(Kind.ANSWER, asked.id))
    assert {(await notes.next()).id, (await notes.next()).id} == {1, 3}
    assert peer.made == 0


async def test_new_certificates_are_shown_by_the_next_line_and_cut_none(pair: Pair) -> None:
    await pair.meet_directly()
    notes, tokenizer = await speakers(pair)
    serving = asyncio.create_task(echo(tokenizer))
    port = pair.beta.far.lines.meeting.port  # type: ignore[union-attr]
    before = shown(pair.alpha, "beta")
    for _ in range(3):
        pair.alpha.far.become(pair.backbone.joining("alpha", line=0))
        pair.beta.far.become(pair.backbone.joining("beta", line=port))
        for ident in range(1, 41, 2):
            assert (await notes.call(ident, "tokenizer.split", b"x")).payload == b"x"
    assert pair.alpha.far.lines._standing["beta"] is before[0]
    assert shown(pair.alpha, "beta") == before
    cut(pair.beta, "alpha")
    await until(lambda: pair.alpha.directly("beta") and shown(pair.alpha, "beta")[0] is not before[0])
    assert shown(pair.alpha, "beta")[1] != before[1]
    await pair.lined()
    assert (await notes.call(101, "tokenizer.split", b"x")).payload == b"x"
    serving.cancel()


def shown(machine: Joined, other: str) -> tuple[DirectLine, object]:
    line = machine.far.lines._standing[other]
    assert line.certificate is not None
    return line, line.certificate["serialNumber"]


async def test_where_both_can_be_dialled_there_is_one_line_and_calls_go_by_it(pair: Pair) -> None:
    await pair.meet_directly(pair.alpha.lets_in(), pair.beta.lets_in())
    notes, tokenizer = await speakers(pair)
    serving = asyncio.create_task(echo(tokenizer))
    ours, theirs = pair.alpha.far.lines._standing["beta"], pair.beta.far.lines._standing["alpha"]
    assert ours._transport is not None
    assert theirs._transport is not None
    assert ours._transport.get_extra_info("sockname") == theirs._transport.get_extra_info("peername")
    for ident in range(1, 21, 2):
        assert (await notes.call(ident, "tokenizer.split", b"x")).payload == b"x"
    assert pair.alpha.far.lines._standing["beta"] is ours
    serving.cancel()


async def test_the_machine_that_cannot_be_dialled_goes_itself(pair: Pair) -> None:
    await pair.meet_directly(pair.alpha.lets_in(), 0)
    notes, tokenizer = await speakers(pair)
    serving = asyncio.create_task(echo(tokenizer))
    assert (await notes.call(1, "tokenizer.split", b"x")).payload == b"x"
    serving.cancel()


async def test_where_nobody_answers_calls_go_through_the_server_and_people_are_told_why(pair: Pair) -> None:
    port = pair.beta.lets_in()
    pair.beta.far.lines._listeners[0].shutdown(2)  # it is announced, and nobody can come
    pair.alpha.far.become(pair.backbone.joining("alpha", line=0))
    pair.beta.far.become(pair.backbone.joining("beta", line=port))
    notes, tokenizer = await speakers(pair)
    serving = asyncio.create_task(echo(tokenizer))
    assert (await notes.call(1, "tokenizer.split", b"x")).payload == b"x"
    await until(lambda: pair.alpha.far.to_json()["peers"][0]["why"])
    assert pair.alpha.far.to_json()["peers"][0]["line"] is False
    serving.cancel()


async def test_a_line_ends_with_what_is_shared_and_with_the_backbone(pair: Pair) -> None:
    await pair.meet_directly()
    notes, tokenizer = await speakers(pair)
    notes.send(Frame(Kind.CALL, 1, "tokenizer.hold"))
    held = await tokenizer.next()
    port = pair.beta.far.lines.meeting.port  # type: ignore[union-attr]
    pair.beta.far.become(pair.backbone.joining("beta", Share("here", ("gamma",)), line=port))
    assert words(await tokenizer.next()) == ("CANCEL", held.id, "")
    assert words(await notes.next())[:2] == ("ERROR", 1)
    assert not pair.beta.directly("alpha")
    await until(lambda: not pair.alpha.directly("beta"))
    pair.beta.far.become(pair.backbone.joining("beta", ALL, line=port))
    await pair.lined()
    pair.backbone.kill()
    await until(lambda: not pair.alpha.directly("beta") and not pair.beta.directly("alpha"))
    await pair.backbone.start()
    await pair.lined()
    serving = asyncio.create_task(echo(tokenizer))
    await until(lambda: pair.alpha.sees("beta", "tokenizer"))
    assert (await notes.call(3, "tokenizer.split", b"x")).payload == b"x"
    serving.cancel()


async def test_a_line_whose_other_side_does_not_read_is_bounded_and_holds_up_nobody_else(pair: Pair) -> None:
    await pair.meet_directly()
    notes, _ = await speakers(pair)
    greedy = await pair.alpha.add("greedy", call=("tokenizer.*",))
    local = await pair.alpha.add("local", "split")
    theirs = pair.beta.far.lines._standing["alpha"]
    assert theirs._transport is not None
    theirs._transport.pause_reading()  # type: ignore[attr-defined]
    for ident in range(1, 102, 2):
        greedy.send(Frame(Kind.CALL, ident, "tokenizer.split", b"x" * 500_000, deadline=60_000))
    ended = await greedy.next()
    assert (ended.kind, ended.name) == (Kind.ERROR, "Overloaded")
    assert pair.alpha.broker.room.total < 80 * 2**20
    pair.alpha.grant("notes", call=("local.split",))
    notes.send(Frame(Kind.CALL, 1, "local.split"))
    asked = await local.next()
    local.send(Frame(Kind.ANSWER, asked.id))
    assert words(await notes.next()) == ("ANSWER", 1, "")
    theirs._transport.resume_reading()  # type: ignore[attr-defined]
