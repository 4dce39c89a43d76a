"""Who may have a direct line, tried with machines that keep to no rules of ours."""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from backboned import until
from raw import words
from rogue import Rogue

from crucible.backbone.authority import authority_in, utc_now
from crucible.bus import directline, wire
from crucible.bus.credentials import dialling
from crucible.bus.wire import Frame, Kind
from crucible.core import backbone
from crucible.model.backbone import Meeting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from conftest import Pair

GAMMA = Meeting("gamma.test")


@pytest.fixture
async def rogue(pair: Pair) -> AsyncIterator[Rogue]:
    made = Rogue(pair.backbone)
    yield made
    made.close()


async def beta_lets_in(pair: Pair) -> int:
    port = pair.beta.lets_in()
    pair.beta.far.become(pair.backbone.joining("beta", line=port))
    await until(lambda: pair.beta.far.nats is not None)
    return port


async def test_a_machine_has_a_line_with_its_own_certificate_name_and_stay_and_with_no_other(
    pair: Pair, rogue: Rogue, tmp_path: Path
) -> None:
    port = await beta_lets_in(pair)
    await pair.alpha_joins()
    await (await rogue.join(GAMMA)).knows(pair.beta)
    other = tmp_path / "other"
    other.mkdir()
    own = rogue.joining("gamma.test")
    tries = {
        "as another machine, by its own certificate": (own, {"sender": "alpha"}),
        "as another machine that is not there": (own, {"sender": "delta"}),
        "as who is called": (own, {"sender": "beta"}),
        "to another machine": (own, {"receiver": "alpha"}),
        "with a certificate of somebody else": (rogue.joining("alpha.test"), {}),
        "with one of a plugin": (rogue.joining("crucible-bus"), {}),
        "with one that begins so": (rogue.joining("gamma.test.example"), {}),
        "with one of the server": (server_of(pair, rogue), {}),
        "of an earlier stay": (own, {"epoch": "earlier"}),
        "to an earlier stay": (own, {"known": "earlier"}),
    }
    for what, (joining, changes) in tries.items():
        try:
            speech = await rogue.dial(port, joining)
            speech.say(rogue.hello(pair.beta, **changes), Frame(Kind.CALL, 1, "here/p/tokenizer.split"))
            heard = await speech.hear()
        except OSError:
            continue  # TLS refused it already
        assert heard is None or (heard.kind, heard.name) in {
            (Kind.ERROR, "NotPermitted"),
            (Kind.ERROR, "Unavailable"),
        }, what
        assert await speech.hear() is None, what
    stranger = rogue.joining("gamma.test", authority_in(other, utc_now()))
    with pytest.raises(OSError):
        await refused(rogue, port, stranger)
    assert not pair.beta.far._peers["gamma"].line
    good = await rogue.line(pair.beta, port)
    assert pair.beta.directly("gamma")
    good.say(Frame(Kind.CALL, 1, "here/p/tokenizer.split"))
    answer = await good.hear()
    assert answer is not None
    assert (answer.id, answer.name) == (2, "NoSuchPlugin")


def server_of(pair: Pair, rogue: Rogue) -> object:
    issued = pair.backbone.certificate
    return replace(rogue.joining("gamma.test"), certificate=issued.certificate, key=issued.key)


async def refused(rogue: Rogue, port: int, joining: object) -> None:
    speech = await rogue.dial(port, joining)  # type: ignore[arg-type]
    speech.say(Frame(Kind.HELLO, payload=b"{}"))
    if await speech.reader.read(1) == b"":
        raise ConnectionResetError("cut off")


async def test_without_a_certificate_without_tls_and_with_older_tls_nobody_says_a_word(
    pair: Pair, rogue: Rogue
) -> None:
    port = await beta_lets_in(pair)
    none = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    none.check_hostname, none.verify_mode = False, ssl.CERT_NONE
    older = dialling(rogue.joining("gamma.test"))
    older.minimum_version = older.maximum_version = ssl.TLSVersion.TLSv1_2
    for context in (none, older, None):
        said = b""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(wire.encode(Frame(Kind.HELLO, payload=b"{}")))
            said = await reader.read(4096)
            writer.close()
        except OSError:
            pass
        assert b"crucible" not in said
        assert not said[4:5] or said[:1] == b"\x15"  # an alert of TLS at most
    assert not pair.beta.far.lines._standing


async def test_who_does_not_introduce_itself_is_cut_off(
    pair: Pair, rogue: Rogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directline, "GREETING", 0.2)
    port = await beta_lets_in(pair)
    silent = await rogue.dial(port)
    assert await silent.hear() is None
    flood = await rogue.dial(port)
    flood.writer.write(b"\0\0\xff\xff" + b"x" * 60_000)  # a first frame larger than one may be
    assert await flood.hear() is None
    await until(lambda: not pair.beta.far.lines._coming)
    assert pair.beta.broker.inbound.total == 0


async def test_many_strangers_at_once_are_bounded(pair: Pair, rogue: Rogue) -> None:
    port = await beta_lets_in(pair)
    writers = []
    for _ in range(40):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            continue
        writers.append(writer)
    await until(lambda: pair.beta.far.lines._coming)
    assert len(pair.beta.far.lines._coming) <= 8
    for writer in writers:
        writer.transport.abort()
    await until(lambda: not pair.beta.far.lines._coming)
    assert rogue.nats is None


async def test_whoever_answers_in_a_machines_place_is_not_believed_and_calls_go_through_the_server(
    pair: Pair, rogue: Rogue
) -> None:
    """An address that somebody else took, with a certificate of the same authority: for us it is nobody."""
    server, came = await rogue.serve(rogue.joining("gamma.test"))
    port = server.sockets[0].getsockname()[1]
    pair.beta.lets_in()
    pair.alpha.far.become(pair.backbone.joining("alpha", line=0))
    pair.beta.far.become(pair.backbone.joining("beta", line=port))
    tokenizer = await pair.beta.add("tokenizer", "split")
    notes = await pair.alpha.add("notes", call=("tokenizer.split",))
    await until(lambda: pair.alpha.sees("beta", "tokenizer"))
    await until(lambda: "another machine" in pair.alpha.far.lines.why.get("beta", ""))
    while not came.empty():
        assert await came.get_nowait().hear() is None  # it was told nothing
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split"))
    asked = await tokenizer.next()
    tokenizer.send(Frame(Kind.ANSWER, asked.id))
    assert words(await notes.next()) == ("ANSWER", 1, "")
    server.close()


async def test_a_machine_that_gives_another_ones_address_as_its_own_has_no_line(
    pair: Pair, rogue: Rogue
) -> None:
    port = await beta_lets_in(pair)
    await pair.alpha_joins()
    await rogue.join(Meeting("gamma.test", "127.0.0.1", port))
    await until(lambda: "gamma" in pair.alpha.far.lines.why)
    assert not pair.alpha.directly("gamma")
    rogue.tell(Meeting("beta.test", "127.0.0.1", port))  # in beta's name it is not even dialled
    await until(lambda: pair.alpha.far._peers["gamma"].meeting is None)


async def test_the_receiver_judges_every_call_on_a_line_as_it_does_through_the_server(
    pair: Pair, rogue: Rogue
) -> None:
    port = await beta_lets_in(pair)
    tokenizer = await pair.beta.add("tokenizer", "split")
    await pair.beta.add("other", "split")
    speech = await (await rogue.join(GAMMA)).line(pair.beta, port)
    names = {
        "here/notes/other.split": "NotPermitted",  # not shared
        "there/notes/tokenizer.split": "NotPermitted",  # another namespace
        "here/notes/$store.get": "Malformed",  # the broker's own
        "here/notes/$host.open": "Malformed",
        "here/notes@alpha/tokenizer.split": "Malformed",  # in another machine's name
        "here/$controller/tokenizer.split": "Malformed",
        "tokenizer.split": "Malformed",
        "here/notes/tokenizer.nope": "NoSuchMethod",
    }
    speech.say(*(Frame(Kind.CALL, 2 * n + 1, name, b"x") for n, name in enumerate(names)))
    for number, code in enumerate(names.values()):
        heard = await speech.hear()
        assert heard is not None
        assert (heard.id, heard.name) == (2 * number + 2, code)
    speech.say(Frame(Kind.CALL, 101, "here/notes/tokenizer.split", b"x"))
    asked = await tokenizer.next()
    assert asked.headers == {"from": "notes@gamma"}
    tokenizer.send(Frame(Kind.ANSWER, asked.id, payload=b"y"))
    answer = await speech.hear()
    assert answer is not None
    assert (answer.id, answer.payload) == (102, b"y")


BROKEN = {
    "no frame": b"\0\0\0\x20" + bytes(32),
    "a length": b"\xff" * 64,
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "an id": wire.encode(Frame(Kind.CALL, 2, "here/p/tokenizer.split")),
    "a header": wire.encode(Frame(Kind.CALL, 1, "here/p/tokenizer.split", headers={"from": "notes"})),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_a_line_that_breaks_the_rules_ends_and_its_machine_is_named(
    pair: Pair, rogue: Rogue, broken: bytes
) -> None:
    port = await beta_lets_in(pair)
    speech = await (await rogue.join(GAMMA)).line(pair.beta, port)
    speech.writer.write(broken)
    heard = await speech.hear()
    assert heard is not None
    assert (heard.kind, heard.id) == (Kind.ERROR, 0)
    assert await speech.hear() is None
    assert not pair.beta.directly("gamma")
    assert pair.beta.broker.ledger.of("", "@gamma").faults["malformed"] == 1


async def test_a_machine_that_floods_its_line_is_limited_and_others_are_served(
    pair: Pair, rogue: Rogue
) -> None:
    port = await beta_lets_in(pair)
    pair.alpha.far.become(pair.backbone.joining("alpha", line=0))
    await pair.lined()
    tokenizer = await pair.beta.add("tokenizer", "split")
    notes = await pair.alpha.add("notes", call=("tokenizer.split",))
    await until(lambda: pair.alpha.sees("beta", "tokenizer"))
    speech = await (await rogue.join(GAMMA)).line(pair.beta, port)
    for number in range(3000):
        speech.say(Frame(Kind.CALL, 2 * number + 1, f"here/p{number % 900}/tokenizer.split", b"x" * 200))
    await until(lambda: pair.beta.broker.ledger.of("", "@gamma").faults.get("overloaded", 0))
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split", b"mine", priority=0))
    while True:
        asked = await tokenizer.next()
        tokenizer.send(Frame(Kind.ANSWER, asked.id, priority=asked.priority))
        if asked.payload == b"mine":
            break
    assert words(await notes.next()) == ("ANSWER", 1, "")
    assert pair.beta.far._peers["gamma"].served <= 1024


async def test_a_machine_that_is_revoked_loses_its_line_and_gets_none_any_more(
    pair: Pair, rogue: Rogue
) -> None:
    port = await beta_lets_in(pair)
    speech = await (await rogue.join(GAMMA)).line(pair.beta, port)
    del pair.backbone.users["gamma"]
    pair.backbone.reload()
    assert await speech.hear() is None
    assert not pair.beta.directly("gamma")
    again = await rogue.dial(port)  # its certificate has not ended
    again.say(rogue.hello(pair.beta))
    heard = await again.hear()
    assert heard is not None
    assert (heard.kind, heard.name) == (Kind.ERROR, "NotPermitted")
    assert await again.hear() is None


async def test_half_a_frame_on_a_line_takes_counted_room_and_gives_it_back(pair: Pair, rogue: Rogue) -> None:
    port = await beta_lets_in(pair)
    speech = await (await rogue.join(GAMMA)).line(pair.beta, port)
    whole = wire.encode(Frame(Kind.CALL, 1, "here/p/tokenizer.split", b"x" * wire.PAYLOAD_LIMIT))
    speech.writer.write(whole[:-1])
    await until(lambda: pair.beta.broker.inbound.total >= len(whole) - 1)
    assert pair.beta.broker.inbound.total <= 2 * len(whole)
    speech.close()
    await until(lambda: pair.beta.broker.inbound.total == 0)
    await until(lambda: not pair.beta.directly("gamma"))


async def test_what_a_machine_says_of_its_plugins_that_is_no_text_harms_nobody_here(
    pair: Pair, rogue: Rogue
) -> None:
    await pair.alpha_joins()
    await rogue.join(GAMMA)
    told = {"epoch": rogue.epoch, "version": 9, "plugins": [["here", "tokenizer", "\ud800"]]}
    assert rogue.nats is not None
    said = wire.encode(Frame(Kind.WELCOME, payload=json.dumps(told).encode()))
    rogue.nats.publish("", 0, backbone.to("alpha", "gamma"), said)
    await until(lambda: "gamma" in pair.alpha.far._peers and pair.alpha.far._peers["gamma"].plugins)
    notes = await pair.alpha.add("notes", call=("tokenizer.split",))
    for ident in (1, 3):
        assert words(await notes.call(ident, "tokenizer.split")) == ("ERROR", ident, "Unavailable")


async def test_what_a_stranger_says_begins_no_line_of_its_own_in_the_log(pair: Pair, rogue: Rogue) -> None:
    port = await beta_lets_in(pair)
    speech = await rogue.dial(port)
    speech.say(rogue.hello(pair.beta, receiver="x\nbeta \ud800"))
    heard = await speech.hear()
    assert heard is not None
    assert (heard.kind, heard.name) == (Kind.ERROR, "NotPermitted")
    assert not any("\n" in said for said in pair.beta.broker.ledger.of("", "@").last.values())
