"""Calls between machines: what arrives, how it ends, and who may."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from backboned import ALL, until
from raw import Raw, words

from crucible.bus import wire
from crucible.bus.wire import Frame, Kind
from crucible.model.backbone import Share

if TYPE_CHECKING:
    from conftest import Pair

FROM_ALL = ("tokenizer.*", "absent.m", "quiet.m")


async def meet(pair: Pair, **grants: object) -> tuple[Raw, Raw]:
    """Return a caller on alpha and a tokenizer on beta that knows how to split."""
    await pair.meet()
    tokenizer = await pair.beta.add("tokenizer", "split")
    notes = await pair.alpha.add("notes", **({"call": FROM_ALL} | grants))
    await until(lambda: pair.alpha.sees("beta", "tokenizer"))
    return notes, tokenizer


async def test_a_call_goes_to_the_machine_that_has_the_plugin_and_its_answer_comes_back(pair: Pair) -> None:
    notes, tokenizer = await meet(pair)
    headers = {"traceparent": "00-1-2-01", "mine": "ü"}
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split", b"to be", headers, priority=1, deadline=20_000))
    asked = await tokenizer.next()
    assert (asked.kind, asked.name, asked.payload, asked.priority) == (Kind.CALL, "split", b"to be", 1)
    assert asked.headers == {**headers, "from": "notes@alpha"}
    assert 0 < asked.deadline <= 20_000
    tokenizer.send(Frame(Kind.ANSWER, asked.id, payload=b"[]", headers={"h": "1"}))
    answer = await notes.next()
    assert (words(answer), answer.payload, answer.headers) == (("ANSWER", 1, ""), b"[]", {"h": "1"})
    assert answer.priority == 1


async def test_an_error_of_the_called_keeps_its_code_and_says_who_it_is_from(pair: Pair) -> None:
    notes, tokenizer = await meet(pair)
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split"))
    asked = await tokenizer.next()
    tokenizer.send(wire.error(asked.id, wire.Code.CONFLICT, "no", {"revision": "5"}))
    answer = await notes.next()
    assert (words(answer), answer.payload) == (("ERROR", 1, "Conflict"), b"no")
    assert answer.headers == {"revision": "5", "from": "tokenizer@beta"}


async def test_what_is_not_there_fails_at_once_with_the_reason(pair: Pair) -> None:
    notes, _ = await meet(pair)
    pair.beta.plugin("quiet", state="is suspended")
    answer = await notes.call(1, "absent.m")
    assert (words(answer), answer.payload) == (("ERROR", 1, "NoSuchPlugin"), b"there is no plugin absent")
    assert words(await notes.call(3, "tokenizer.join")) == ("ERROR", 3, "NoSuchMethod")
    shared = Share("here", ("*",), ("tokenizer.*", "quiet.*"))
    pair.beta.far.become(pair.backbone.joining("beta", shared))
    await until(lambda: ("here", "quiet") in pair.alpha.far._peers["beta"].plugins)
    answer = await notes.call(5, "quiet.m")
    assert words(answer) == ("ERROR", 5, "Unavailable")
    assert answer.payload == b"quiet on beta: is suspended"


async def test_a_plugin_of_this_machine_is_asked_before_any_other(pair: Pair) -> None:
    notes, far = await meet(pair)
    near = await pair.alpha.add("tokenizer", "split")
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split"))
    assert (await near.next()).headers == {"from": "notes"}
    await near.close()
    assert words(await notes.next()) == ("ERROR", 1, "Unavailable")
    notes.send(Frame(Kind.CALL, 3, "tokenizer.split"))
    assert (await far.next()).headers == {"from": "notes@alpha"}


async def test_a_deadline_ends_a_call_on_both_machines(pair: Pair) -> None:
    notes, tokenizer = await meet(pair)
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split", deadline=1500))
    asked = await tokenizer.next()
    assert asked.deadline <= 1500
    assert words(await notes.next()) == ("ERROR", 1, "DeadlineExceeded")
    assert words(await tokenizer.next()) == ("CANCEL", asked.id, "")
    tokenizer.send(Frame(Kind.ANSWER, asked.id, payload=b"late"))
    notes.send(Frame(Kind.CALL, 3, "tokenizer.split", b"again"))
    again = await tokenizer.next()
    tokenizer.send(Frame(Kind.ANSWER, again.id, payload=b"in time"))
    assert (await notes.next()).payload == b"in time"


async def test_a_cancelled_call_is_cancelled_there_too_as_is_one_whose_caller_goes(pair: Pair) -> None:
    notes, tokenizer = await meet(pair)
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split"))
    asked = await tokenizer.next()
    notes.send(Frame(Kind.CANCEL, 1))
    assert words(await notes.next()) == ("ERROR", 1, "Cancelled")
    assert words(await tokenizer.next()) == ("CANCEL", asked.id, "")
    notes.send(Frame(Kind.CALL, 3, "tokenizer.split"))
    asked = await tokenizer.next()
    await notes.close()
    assert words(await tokenizer.next()) == ("CANCEL", asked.id, "")
    await until(lambda: not pair.alpha.far._peers["beta"].made and not pair.beta.far._peers["alpha"].served)


async def test_the_called_that_goes_away_is_told_at_once(pair: Pair) -> None:
    notes, tokenizer = await meet(pair)
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split"))
    await tokenizer.next()
    await tokenizer.close()
    answer = await notes.next()
    assert (words(answer), answer.payload) == (
        ("ERROR", 1, "Unavailable"),
        b"tokenizer went away during the call",
    )
    await until(lambda: not pair.alpha.sees("beta", "tokenizer"))
    assert words(await notes.call(3, "tokenizer.split")) == ("ERROR", 3, "Unavailable")


async def test_a_stream_flows_both_ways_as_far_as_credit_goes(pair: Pair) -> None:
    notes, tokenizer = await meet(pair)
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split", flags=wire.STREAM), wire.credit(1, 2))
    asked = await tokenizer.next()
    assert asked.flags == wire.STREAM
    assert wire.credit_of(await tokenizer.next()) == 2
    tokenizer.send(wire.credit(asked.id, 1), Frame(Kind.ITEM, asked.id, payload=b"a"))
    got = [await notes.next(), await notes.next()]
    assert {Kind(frame.kind) for frame in got} == {Kind.CREDIT, Kind.ITEM}
    notes.send(Frame(Kind.ITEM, 1, payload=b"up", flags=wire.LAST))
    up = await tokenizer.next()
    assert (up.kind, up.payload, up.flags) == (Kind.ITEM, b"up", wire.LAST)
    tokenizer.send(Frame(Kind.ITEM, asked.id, payload=b"b"), Frame(Kind.ITEM, asked.id, payload=b"too many"))
    assert (await notes.next()).payload == b"b"
    assert words(await notes.next()) == ("ERROR", 1, "Overloaded")
    assert words(await tokenizer.next()) == ("CANCEL", asked.id, "")


async def test_the_largest_payload_goes_through_and_many_calls_at_once(pair: Pair) -> None:
    notes, tokenizer = await meet(pair)

    async def echo() -> None:
        while True:
            asked = await tokenizer.next()
            tokenizer.send(Frame(Kind.ANSWER, asked.id, payload=asked.payload))

    serving = asyncio.create_task(echo())
    large = bytes(range(256)) * (wire.PAYLOAD_LIMIT // 256)
    assert (await notes.call(1, "tokenizer.split", large)).payload == large
    notes.send(*(Frame(Kind.CALL, ident, "tokenizer.split", b"%d" % ident) for ident in range(3, 1003, 2)))
    answers = {frame.id: frame.payload for frame in [await notes.next() for _ in range(500)]}
    assert answers == {ident: b"%d" % ident for ident in range(3, 1003, 2)}
    serving.cancel()


async def test_one_machine_keeps_the_other_from_what_is_not_shared_and_what_was_granted_before(
    pair: Pair,
) -> None:
    notes, tokenizer = await meet(pair)
    assert words(await notes.call(1, "other.m")) == ("ERROR", 1, "NotPermitted")  # by alpha: no grant
    notes.send(Frame(Kind.CALL, 3, "tokenizer.split"))
    asked = await tokenizer.next()
    pair.alpha.grant("notes", call=("other.m",))
    assert words(await notes.next()) == ("ERROR", 3, "NotPermitted")
    assert words(await tokenizer.next()) == ("CANCEL", asked.id, "")
    pair.alpha.grant("notes", call=FROM_ALL)
    notes.send(Frame(Kind.CALL, 5, "tokenizer.split"))
    asked = await tokenizer.next()
    pair.beta.far.become(pair.backbone.joining("beta", Share("here", ("*",), ("tokenizer.other",))))
    assert words(await notes.next()) == ("ERROR", 5, "NotPermitted")  # by beta: not shared any more
    assert words(await tokenizer.next()) == ("CANCEL", asked.id, "")
    answer = await notes.call(7, "tokenizer.split")
    assert words(answer) == ("ERROR", 7, "NotPermitted")
    assert b"does not share tokenizer.split with alpha" in answer.payload


async def test_a_machine_that_is_not_named_is_neither_called_nor_heard(pair: Pair) -> None:
    await pair.meet(alpha=Share("here", ("delta",), ("tokenizer.*",)), beta=ALL)
    await pair.beta.add("tokenizer", "split")
    notes = await pair.alpha.add("notes", call=FROM_ALL)
    client = await pair.backbone.client("gamma")
    await client.flush()
    assert words(await notes.call(1, "tokenizer.split")) == ("ERROR", 1, "NoSuchPlugin")
    assert not pair.alpha.far._peers
    client.close()


async def test_a_namespace_that_is_not_shared_stays_on_its_machine(pair: Pair) -> None:
    await pair.meet()
    await Raw.greet(pair.beta.plugin("tokenizer", "there"), methods=["split"])
    notes = await Raw.greet(pair.alpha.plugin("notes", "there", call=FROM_ALL))
    await pair.beta.add("tokenizer", "split")
    await until(lambda: pair.alpha.sees("beta", "tokenizer"))
    assert not pair.alpha.sees("beta", "tokenizer", "there")
    assert words(await notes.call(1, "tokenizer.split")) == ("ERROR", 1, "NoSuchPlugin")
