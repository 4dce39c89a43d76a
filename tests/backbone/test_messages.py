"""What is published on one machine and heard on another; and durable events, taken once or more."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from backboned import ALL, until
from raw import DEADLINE, Raw, words

from crucible.bus.wire import Frame, Kind
from crucible.model.backbone import Share

if TYPE_CHECKING:
    import pytest
    from backboned import Joined

    from conftest import Pair


async def meet(pair: Pair, **shares: Share) -> tuple[Raw, Raw]:
    """Return a publisher on beta and a subscriber on alpha."""
    await pair.meet(**shares)
    editor = await pair.beta.add("editor", publish=("notes.>", "secret.>"))
    notes = await pair.alpha.add("notes", subscribe=("notes.>", "secret.>"))
    return editor, notes


async def follow(client: Raw, ident: int, pattern: str) -> None:
    assert words(await client.ask(Frame(Kind.SUBSCRIBE, ident, pattern))) == ("ANSWER", ident, "")


async def put(client: Raw, ident: int, subject: str, payload: bytes = b"", **headers: str) -> Frame:
    return await client.call(ident, "$events.put", payload, headers={"subject": subject, **headers})


def take(ident: int, pattern: str = "notes.*", deadline: int = 20_000, **headers: str) -> Frame:
    return Frame(Kind.CALL, ident, "$events.take", headers={"pattern": pattern, **headers}, deadline=deadline)


async def begin(machine: Joined, client: Raw, ident: int, **headers: str) -> None:
    """Take where there is nothing yet, until the subscription is there: from then on its events are kept."""
    kept = machine.far.durable._consumers
    before = len(kept)
    async with asyncio.timeout(DEADLINE):
        while len(kept) == before:
            assert words(await client.ask(take(ident, deadline=300, **headers)))[2] == "DeadlineExceeded"


async def test_a_message_is_heard_on_the_other_machine_and_says_where_it_is_from(pair: Pair) -> None:
    editor, notes = await meet(pair)
    await follow(notes, 1, "notes.saved")
    editor.send(
        Frame(Kind.PUBLISH, 0, "notes.other"), Frame(Kind.PUBLISH, 0, "notes.saved", b"7", {"k": "v"})
    )
    heard = await notes.next()
    assert (heard.kind, heard.name, heard.payload) == (Kind.MESSAGE, "notes.saved", b"7")
    assert heard.headers == {"k": "v", "from": "editor@beta"}


async def test_what_is_not_shared_is_not_heard_though_the_manifests_grant_it(pair: Pair) -> None:
    editor, notes = await meet(pair)
    await follow(notes, 1, "secret.>")
    await follow(notes, 3, "notes.>")
    editor.send(Frame(Kind.PUBLISH, 0, "secret.key"), Frame(Kind.PUBLISH, 0, "notes.saved", b"after"))
    assert (await notes.next()).payload == b"after"
    assert pair.alpha.broker.ledger.of("", "@beta").faults == {"refused": 1}
    pair.alpha.far.become(pair.backbone.joining("alpha", Share("here", ("delta",), (), ("notes.>",))))
    editor.send(Frame(Kind.PUBLISH, 0, "notes.saved", b"unheard"))
    await until(lambda: pair.alpha.broker.ledger.of("", "@beta").faults == {"refused": 2})


async def test_a_durable_event_waits_for_its_subscriber_and_comes_again_until_it_is_done(pair: Pair) -> None:
    editor, notes = await meet(pair)
    await pair.backbone.make_streams("here")
    await begin(pair.alpha, notes, 1)
    for number in range(3):
        assert words(await put(editor, 1 + 2 * number, "notes.saved", b"%d" % number))[0] == "ANSWER"
    first = await notes.ask(take(3))
    assert (first.payload, first.headers["subject"], first.headers["from"]) == (
        b"0",
        "notes.saved",
        "editor@beta",
    )
    second = await notes.ask(take(5, done=first.headers["sequence"]))
    assert second.payload == b"1"
    await notes.close()
    again = await Raw.greet(pair.alpha.folder / "here-notes.sock")
    third = await again.ask(take(1))
    assert third.payload == b"2"
    await asyncio.gather(again.ask(take(3, done=third.headers["sequence"], deadline=300)))
    await again.close()


async def test_what_was_taken_comes_again_until_it_is_said_to_be_done_and_then_never(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crucible.bus.durable.ACK_SECONDS", 1)
    editor, notes = await meet(pair)
    await pair.backbone.make_streams("here")
    await begin(pair.alpha, notes, 1)
    assert words(await put(editor, 1, "notes.saved", b"once"))[0] == "ANSWER"
    first, again = await notes.ask(take(3)), await notes.ask(take(5))
    assert first.payload == again.payload == b"once"
    rest = await notes.ask(take(7, done=again.headers["sequence"], deadline=1500))
    assert words(rest) == ("ERROR", 7, "DeadlineExceeded")


async def test_a_durable_event_is_heard_by_ordinary_subscribers_too_on_every_machine(pair: Pair) -> None:
    editor, notes = await meet(pair)
    await pair.backbone.make_streams("here")
    near = await pair.beta.add("near", subscribe=("notes.>",))
    await follow(notes, 1, "notes.>")
    await follow(near, 1, "notes.>")
    assert words(await put(editor, 1, "notes.saved", b"x")) == ("ANSWER", 1, "")
    far, here = await notes.next(), await near.next()
    assert (far.name, far.payload, far.headers["from"]) == ("notes.saved", b"x", "editor@beta")
    assert (here.name, here.payload, here.headers["from"]) == ("notes.saved", b"x", "editor")


async def test_the_same_event_put_again_with_its_id_is_one(pair: Pair) -> None:
    editor, notes = await meet(pair)
    await pair.backbone.make_streams("here")
    await begin(pair.alpha, notes, 1)
    one = await put(editor, 1, "notes.saved", b"x", id="job-7")
    same = await put(editor, 3, "notes.saved", b"x", id="job-7")
    assert one.headers["sequence"] == same.headers["sequence"]
    found = await notes.ask(take(3))
    assert (
        words(await notes.ask(take(5, done=found.headers["sequence"], deadline=400)))[2] == "DeadlineExceeded"
    )


async def test_subscriptions_of_different_names_each_get_an_event_and_instances_of_one_share_it(
    pair: Pair,
) -> None:
    editor, notes = await meet(pair)
    await pair.backbone.make_streams("here")
    for ident, name in ((1, "index"), (3, "mail")):
        await begin(pair.alpha, notes, ident, subscription=name)
    assert words(await put(editor, 1, "notes.saved", b"x")) == ("ANSWER", 1, "")
    for ident, name in ((5, "index"), (7, "mail")):
        assert (await notes.ask(take(ident, subscription=name))).payload == b"x"
    assert words(await notes.ask(take(9, deadline=300, subscription="mail")))[2] == "DeadlineExceeded"


async def test_a_subscription_is_of_one_machines_plugin_and_one_with_an_at_sign_of_all(pair: Pair) -> None:
    editor, notes = await meet(pair)
    await pair.backbone.make_streams("here")
    namesake = await pair.beta.add("notes", subscribe=("notes.>",))
    for ident, name in ((1, "main"), (3, "@work")):
        await begin(pair.alpha, notes, ident, subscription=name)
        await begin(pair.beta, namesake, ident, subscription=name)
    for number in range(2):
        assert words(await put(editor, 1 + 2 * number, "notes.saved", b"%d" % number))[0] == "ANSWER"
    for taker in (notes, namesake):  # each hears all of its own
        first = await taker.ask(take(5))
        second = await taker.ask(take(7, done=first.headers["sequence"]))
        assert (first.payload, second.payload) == (b"0", b"1")
    shared = [await taker.ask(take(9, subscription="@work")) for taker in (notes, namesake)]
    assert sorted(event.payload for event in shared) == [b"0", b"1"]
    for taker in (notes, namesake):
        answer = await taker.ask(take(11, deadline=300, subscription="@work"))
        assert words(answer)[2] == "DeadlineExceeded"


async def test_a_subscription_that_was_forgotten_begins_anew(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crucible.bus.durable.UNUSED_SECONDS", 1)
    editor, notes = await meet(pair)
    await pair.backbone.make_streams("here")
    await begin(pair.alpha, notes, 1)
    manager = await pair.backbone.client("manager")
    async with asyncio.timeout(DEADLINE):
        while True:
            said = await manager.request("$JS.API.STREAM.INFO.CRUCIBLE-here", b"", DEADLINE)
            if not json.loads(said.payload)["state"]["consumer_count"]:
                break
            await asyncio.sleep(0.05)
    manager.close()
    gone = await notes.ask(take(3))
    assert (words(gone), b"take again" in gone.payload) == (("ERROR", 3, "Unavailable"), True)
    notes.send(take(5))
    await until(lambda: pair.alpha.far.durable._consumers)
    assert words(await put(editor, 1, "notes.saved", b"x"))[0] == "ANSWER"
    assert (await notes.next()).payload == b"x"


async def test_durable_events_are_refused_as_manifests_and_settings_say(pair: Pair) -> None:
    editor, notes = await meet(pair)
    await pair.backbone.make_streams("here")
    assert words(await put(editor, 1, "other.saved")) == ("ERROR", 1, "NotPermitted")
    assert words(await put(editor, 3, "crucible.events.x")) == ("ERROR", 3, "NotPermitted")
    assert words(await put(editor, 5, "no subject")) == ("ERROR", 5, "Malformed")
    assert words(await put(editor, 7, "notes.saved", id="no id")) == ("ERROR", 7, "Malformed")
    assert words(await notes.ask(take(1, "other.>"))) == ("ERROR", 1, "NotPermitted")
    assert pair.alpha.far.durable._consumers == {}, "the stream was asked to keep what is not granted"
    assert words(await notes.ask(take(3, "no pattern"))) == ("ERROR", 3, "Malformed")
    for ident, name in ((5, "a_b"), (7, "@"), (9, "a@b"), (11, "@@a")):
        assert words(await notes.ask(take(ident, subscription=name))) == ("ERROR", ident, "Malformed")
    there = await Raw.greet(pair.alpha.plugin("late", "there", subscribe=("notes.>",), publish=("notes.>",)))
    answer = await put(there, 1, "notes.saved")
    assert (words(answer), b"no namespace there" in answer.payload) == (("ERROR", 1, "Unavailable"), True)


async def test_an_event_of_a_machine_that_may_not_tell_is_taken_by_nobody(pair: Pair) -> None:
    editor, notes = await meet(pair, alpha=Share("here", ("beta",), (), ("notes.saved",)))
    await pair.backbone.make_streams("here")
    await begin(pair.alpha, notes, 1)
    assert words(await put(editor, 1, "notes.secret", b"no"))[0] == "ANSWER"
    assert words(await put(editor, 3, "notes.saved", b"yes"))[0] == "ANSWER"
    assert (await notes.ask(take(3))).payload == b"yes"


async def test_takes_without_end_are_bounded_and_reported(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crucible.bus.durable.TAKES_LIMIT", 2)
    _, notes = await meet(pair)
    notes.send(*(take(ident) for ident in (1, 3, 5)))
    assert words(await notes.next()) == ("ERROR", 5, "Overloaded")
    assert pair.alpha.broker.ledger.of("here", "notes").faults == {"overloaded": 1}


async def test_a_take_ends_when_its_grant_does(pair: Pair) -> None:
    _, notes = await meet(pair)
    await pair.backbone.make_streams("here")
    notes.send(take(1))
    await until(lambda: pair.alpha.far.durable._consumers)
    pair.alpha.grant("notes", subscribe=("other",))
    assert words(await notes.next()) == ("ERROR", 1, "NotPermitted")


async def test_without_a_backbone_durable_events_say_what_is_missing(pair: Pair) -> None:
    notes = await pair.alpha.add("notes", publish=("notes.>",))
    answer = await put(notes, 1, "notes.saved")
    assert words(answer) == ("ERROR", 1, "Unavailable")
    assert b"--backbone" in answer.payload
    pair.alpha.far.become(pair.backbone.joining("alpha", ALL))
    await until(lambda: pair.alpha.far.nats is not None)
    answer = await put(notes, 3, "notes.saved")  # nobody made the stream
    assert (words(answer), b"keeps no events" in answer.payload) == (("ERROR", 3, "Unavailable"), True)


async def test_an_event_whose_headers_leave_no_room_is_taken_without_them(pair: Pair) -> None:
    """Who takes it gets headers of the broker's besides: it would come again and again."""
    editor, notes = await meet(pair)
    await pair.backbone.make_streams("here")
    await begin(pair.alpha, notes, 1)
    for ident, (payload, pad) in enumerate(((b"full", 4069), (b"more", 4050), (b"good", 9))):
        await put(editor, 1 + 2 * ident, "notes.saved", payload, pad="x" * pad)
    for ident, (payload, padded) in enumerate(((b"full", False), (b"more", False), (b"good", True))):
        found = await notes.ask(take(3 + 2 * ident))
        assert (words(found)[0], found.payload, "pad" in found.headers) == ("ANSWER", payload, padded)
        assert (found.headers["subject"], found.headers["from"]) == ("notes.saved", "editor@beta")
        assert found.headers["sequence"] == str(1 + ident)
