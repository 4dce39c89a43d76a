"""Who may say what on the backbone, tried with clients that keep to no rules of ours."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from backboned import ALL, DEADLINE, Backbone, until
from raw import words

from crucible.backbone.authority import authority_in, utc_now
from crucible.bus import nats, wire
from crucible.bus.credentials import context_of
from crucible.bus.news import beat
from crucible.bus.wire import Frame, Kind
from crucible.core import backbone as rules
from crucible.errors import Unavailable
from crucible.model.backbone import Joining

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Pair
    from crucible.bus.natswire import Message

SPOKEN = (
    "crucible.here.{0}",
    "crucible.to.alpha.{0}",
    "crucible.to.beta.{0}",
    "crucible.say.here.{0}.p.x",
    "crucible.say.there.{0}.p.x.y",
    "crucible.keep.here.{0}.p.x",
)
"""What a machine may publish to, with its own name."""
NEVER = (
    "crucible.say.elsewhere.gamma.p.x",
    "crucible.keep.elsewhere.gamma.p.x",
    "crucible.say.here.alpha.gamma.x",
    "crucible",
    "anything",
    "_INBOX.alpha.x",
    "crucible.renew.alpha",
    "$SYS.REQ.SERVER.PING",
    "$JS.API.INFO",
    "$JS.API.STREAM.CREATE.CRUCIBLE-here",
    "$JS.API.STREAM.UPDATE.CRUCIBLE-here",
    "$JS.API.STREAM.DELETE.CRUCIBLE-here",
    "$JS.API.STREAM.PURGE.CRUCIBLE-here",
    "$JS.API.STREAM.MSG.GET.CRUCIBLE-here",
    "$JS.API.DIRECT.GET.CRUCIBLE-here",
    "$JS.API.CONSUMER.DELETE.CRUCIBLE-here.alpha_main",
    "$JS.API.CONSUMER.CREATE.CRUCIBLE-elsewhere.x.crucible.keep.elsewhere.>",
    "$JS.API.CONSUMER.MSG.NEXT.CRUCIBLE-elsewhere.x",
)


async def test_a_machine_speaks_with_its_own_name_in_its_own_namespaces_and_nothing_else(
    backbone: Backbone,
) -> None:
    heard: list[Message] = []
    client = await backbone.client("alpha", heard.append)
    for subject in rules.heard("alpha", ("here", "there")):
        client.subscribe(subject)
    await client.flush()
    gamma = await backbone.client("gamma")
    for name in ("gamma", "alpha", "beta"):
        for subject in SPOKEN:
            gamma.publish("", 0, subject.format(name), b"x")
    for subject in NEVER:
        gamma.publish("", 0, subject, b"x")
    await gamma.flush()
    await client.flush()
    allowed = {subject.format("gamma") for subject in SPOKEN} - {"crucible.to.beta.gamma"}
    assert {message.subject for message in heard} == allowed
    refused = backbone.log().count("Publish Violation")
    assert refused == len(NEVER) + 2 * len(SPOKEN)
    client.close()
    gamma.close()


async def test_a_machine_hears_only_what_is_for_it(backbone: Backbone) -> None:
    heard: list[Message] = []
    outsider = await backbone.client("outsider", heard.append)
    for subject in (
        ">",
        "crucible.>",
        "crucible.to.>",
        "crucible.to.alpha.*",
        "crucible.say.here.>",
        "crucible.keep.here.>",
        "crucible.renew.>",
        "_INBOX.>",
        "_INBOX.alpha.>",
        "$JS.>",
        "$SYS.>",
    ):
        outsider.subscribe(subject)
    await outsider.flush()
    beta = await backbone.client("beta")
    for subject in ("crucible.to.alpha.beta", "crucible.say.here.beta.p.x", "crucible.keep.here.beta.p.x"):
        assert beta.publish("", 0, subject, b"secret")
    await beta.flush()
    await outsider.flush()
    assert heard == []
    assert backbone.log().count("Subscription Violation") == 11
    outsider.close()
    beta.close()


def joining_of(backbone: Backbone, identity: str, authority: object = None, days: int = 1) -> Joining:
    signer = authority or backbone.authority
    issued = signer.machine(identity, utc_now() - timedelta(days=2), timedelta(days=2 + days))  # type: ignore[attr-defined]
    return Joining("alpha", "127.0.0.1", backbone.port, backbone.authority.certificate, *_pem(issued))


def _pem(issued: object) -> tuple[str, str]:
    return issued.certificate, issued.key  # type: ignore[attr-defined]


async def test_nobody_is_let_in_with_a_certificate_that_is_not_good(
    backbone: Backbone, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    bad = {
        "of another authority": joining_of(backbone, "alpha.test", authority_in(other, utc_now())),
        "that has ended": joining_of(backbone, "alpha.test", days=-1),
        "of nobody who was invited": joining_of(backbone, "delta.test"),
        "of a server": Joining(
            "alpha",
            "127.0.0.1",
            backbone.port,
            backbone.authority.certificate,
            *_pem(backbone.certificate),
        ),
    }
    for what, joining in bad.items():
        with pytest.raises(Unavailable):
            await nats.connect(
                "127.0.0.1", backbone.port, context_of(joining), what.split()[0], lambda _: None
            )
    good = await backbone.client("alpha")
    good.close()


async def test_a_server_with_another_name_or_of_another_authority_is_not_believed(
    backbone: Backbone, tmp_path: Path
) -> None:
    joining = backbone.joining("alpha")
    with pytest.raises(Unavailable, match="localhost"):  # its certificate says 127.0.0.1
        await nats.connect("localhost", backbone.port, context_of(joining), "alpha", lambda _: None)
    other = tmp_path / "other"
    other.mkdir()
    stranger = authority_in(other, utc_now())
    fooled = Joining(
        "alpha", "127.0.0.1", backbone.port, stranger.certificate, joining.certificate, joining.key
    )
    with pytest.raises(Unavailable, match="certificate verify failed"):
        await nats.connect("127.0.0.1", backbone.port, context_of(fooled), "alpha", lambda _: None)


async def test_tls_older_than_1_3_and_plain_text_are_refused(backbone: Backbone) -> None:
    context = context_of(backbone.joining("alpha"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(Unavailable):
        await nats.connect("127.0.0.1", backbone.port, context, "alpha", lambda _: None)
    with socket.create_connection(("127.0.0.1", backbone.port), timeout=DEADLINE) as plain:
        plain.settimeout(DEADLINE)
        plain.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        said = b""
        while chunk := plain.recv(4096):
            said += chunk
    assert b"INFO" not in said
    assert b"PONG" not in said


async def test_a_machine_that_is_revoked_is_cut_off_and_the_others_are_not(pair: Pair) -> None:
    await pair.meet()
    ours = pair.alpha.far.nats
    assert ours is not None
    gamma = await pair.backbone.client("gamma")
    del pair.backbone.users["gamma"]
    pair.backbone.reload()
    async with asyncio.timeout(DEADLINE):
        await gamma.lost
    with pytest.raises(Unavailable):
        await pair.backbone.client("gamma")
    assert pair.alpha.far.nats is ours
    assert not ours.lost.done()


async def test_the_receiver_judges_every_call_whatever_the_sender_claims(pair: Pair) -> None:
    """Frames that a broker of ours would never send: it refuses each, and serves its own as before."""
    await pair.meet()
    tokenizer = await pair.beta.add("tokenizer", "split")
    await pair.beta.add("other", "split")
    answers: list[Frame] = []

    def heard(message: Message) -> None:
        if message.subject == "crucible.to.gamma.beta":
            answers.extend(wire.Decoder().feed(message.payload))

    gamma = await pair.backbone.client("gamma", heard)
    gamma.subscribe("crucible.to.gamma.*")
    await gamma.flush()
    names = {
        "here/notes/other.split": "NotPermitted",  # not shared
        "there/notes/tokenizer.split": "NotPermitted",  # another namespace
        "here/notes/$store.get": "Malformed",  # the broker's own
        "here/notes/$bus.ping": "Malformed",
        "here/notes/$host.open": "Malformed",
        "here/notes@alpha/tokenizer.split": "Malformed",  # in another machine's name
        "here/$controller/tokenizer.split": "Malformed",
        "here/tokenizer.split": "Malformed",
        "tokenizer.split": "Malformed",
        "here/notes/tokenizer.nope": "NoSuchMethod",
    }
    for number, name in enumerate(names):
        frame = Frame(Kind.CALL, 2 * number + 1, name, b"x")
        gamma.publish("", 0, "crucible.to.beta.gamma", wire.encode(frame))
    await until(lambda: sum(frame.kind == Kind.ERROR for frame in answers) == len(names))
    found = {frame.id: frame.name for frame in answers if frame.kind == Kind.ERROR}
    assert found == {2 * number + 2: code for number, code in enumerate(names.values())}
    frame = Frame(Kind.CALL, 101, "here/notes/tokenizer.split", b"x", {"from": "notes"})
    gamma.publish("", 0, "crucible.to.beta.gamma", wire.encode(frame))
    for broken in (
        b"",
        b"\0",
        b"\0\0\0\x10",
        b"{}",
        b"\0\0\0\x20" + bytes(32),
        bytes(64),
        b"GET / HTTP/1.1\r\n\r\n",
    ):
        gamma.publish("", 0, "crucible.to.beta.gamma", broken)
        gamma.publish("", 0, "crucible.here.gamma", broken)
        gamma.publish("", 0, "crucible.say.here.gamma.p.notes", broken)
    gamma.publish(
        "", 0, "crucible.to.beta.gamma", wire.encode(Frame(Kind.CALL, 103, "here/notes/tokenizer.split"))
    )
    asked = await tokenizer.next()
    assert asked.headers == {"from": "notes@gamma"}  # gamma's word, said to be so
    tokenizer.send(Frame(Kind.ANSWER, asked.id, payload=b"y"))
    await until(lambda: any(frame.id == 104 for frame in answers))
    notes = await pair.alpha.add("notes", call=("tokenizer.split",))
    await until(lambda: pair.alpha.sees("beta", "tokenizer"))
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split"))
    asked = await tokenizer.next()
    assert asked.headers == {"from": "notes@alpha"}
    tokenizer.send(Frame(Kind.ANSWER, asked.id))
    assert words(await notes.next()) == ("ANSWER", 1, "")
    gamma.close()


async def test_nobody_answers_or_ends_a_call_that_is_not_theirs(pair: Pair) -> None:
    await pair.meet()
    tokenizer = await pair.beta.add("tokenizer", "split")
    notes = await pair.alpha.add("notes", call=("tokenizer.split",))
    await until(lambda: pair.alpha.sees("beta", "tokenizer"))
    gamma = await pair.backbone.client("gamma")
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split"))
    asked = await tokenizer.next()
    ident = next(iter(pair.beta.far._peers["alpha"].server._served))
    for frame in (
        Frame(Kind.ANSWER, ident + 1, payload=b"forged"),
        wire.error(ident + 1, wire.Code.FAILED, "forged"),
    ):
        gamma.publish("", 0, "crucible.to.alpha.gamma", wire.encode(frame))
        gamma.publish("", 0, "crucible.to.alpha.beta", wire.encode(frame))
    gamma.publish("", 0, "crucible.to.beta.gamma", wire.encode(Frame(Kind.CANCEL, ident)))
    await gamma.flush()
    await until(lambda: "gamma" in pair.alpha.far._peers)
    tokenizer.send(Frame(Kind.ANSWER, asked.id, payload=b"true"))
    assert (await notes.next()).payload == b"true"
    gamma.close()


async def test_the_server_says_nothing_in_another_machines_name_on_somebodys_behalf(pair: Pair) -> None:
    """JetStream can be asked to send anywhere: what it sends is no frame, or keeps the subject it came by."""
    await pair.meet()
    await pair.backbone.make_streams("here")
    tokenizer = await pair.beta.add("tokenizer", "split")
    notes = await pair.alpha.add("notes", call=("tokenizer.split",))
    await until(lambda: pair.alpha.sees("beta", "tokenizer"))
    gamma = await pair.backbone.client("gamma")
    target = rules.to("beta", "alpha")
    config = {
        "name": "evil",
        "durable_name": "evil",
        "deliver_subject": target,
        "filter_subject": "crucible.keep.here.>",
        "ack_policy": "none",
        "idle_heartbeat": 100_000_000,
        "description": "\0\0\0\x10",
    }
    body = json.dumps({"stream_name": "CRUCIBLE-here", "config": config, "action": ""}).encode()
    made = await gamma.request(
        "$JS.API.CONSUMER.CREATE.CRUCIBLE-here.evil.crucible.keep.here.>", body, DEADLINE
    )
    assert b'"error"' not in made.payload
    forged = wire.encode(Frame(Kind.CALL, 1, "here/notes/tokenizer.split", b"forged"))
    stored = await gamma.request("crucible.keep.here.gamma.p.notes", forged, DEADLINE)
    assert b'"seq"' in stored.payload
    gamma._write(b"PUB $JS.API.CONSUMER.MSG.NEXT.CRUCIBLE-here.evil %s 0\r\n\r\n" % target.encode())
    again = b"PUB $JS.API.CONSUMER.CREATE.CRUCIBLE-here.evil.crucible.keep.here.> %s %d\r\n%s\r\n"
    gamma._write(again % (target.encode(), len(body), body))
    await gamma.flush()
    peer = pair.beta.far._peers["alpha"]
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split", b"true"))
    asked = await tokenizer.next()
    assert (asked.payload, asked.headers) == (b"true", {"from": "notes@alpha"})
    assert pair.beta.far._peers["alpha"] is peer
    assert peer.served == 1
    tokenizer.send(Frame(Kind.ANSWER, asked.id))
    assert words(await notes.next()) == ("ANSWER", 1, "")
    gamma.close()


async def test_a_machine_that_floods_is_limited_and_others_are_served(pair: Pair) -> None:
    await pair.meet(beta=ALL)
    tokenizer = await pair.beta.add("tokenizer", "split")
    notes = await pair.alpha.add("notes", call=("tokenizer.split",))
    await until(lambda: pair.alpha.sees("beta", "tokenizer"))
    gamma = await pair.backbone.client("gamma")
    for number in range(3000):
        frame = Frame(Kind.CALL, 2 * number + 1, f"here/p{number % 900}/tokenizer.split", b"x" * 200)
        gamma.publish("", 0, "crucible.to.beta.gamma", wire.encode(frame))
    await gamma.flush()
    await until(lambda: pair.beta.broker.ledger.of("", "@gamma").faults.get("overloaded", 0))
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split", b"mine", priority=0))
    async with asyncio.timeout(DEADLINE):
        while True:
            asked = await tokenizer.next()
            tokenizer.send(Frame(Kind.ANSWER, asked.id, priority=asked.priority))
            if asked.payload == b"mine":
                break
    assert words(await notes.next()) == ("ANSWER", 1, "")
    assert pair.beta.far._peers["gamma"].served <= 1024
    gamma.close()


async def test_a_machine_that_asks_without_end_is_told_now_and_then(pair: Pair) -> None:
    """Each asking costs it a few bytes, and us a list of all plugins."""
    await pair.meet()
    heard: list[Frame] = []

    def hear(message: Message) -> None:
        heard.extend(wire.frames_of(message.payload))

    gamma = await pair.backbone.client("gamma", hear)
    gamma.subscribe(rules.to("gamma", "*"))
    to = rules.to("beta", "gamma")
    hello = wire.encode(Frame(Kind.HELLO, payload=b"{}"))
    for number in range(1000):
        gamma.publish("", 0, to, hello)
        gamma.publish("", 0, rules.here("gamma"), beat(f"stay-{number}", 1))
    for _ in range(10):
        gamma.publish("", 0, to, hello * 10_000)
    gamma.publish("", 0, to, wire.encode(Frame(Kind.CALL, 1, "here/p/q.m")))
    await until(lambda: any(frame.kind == Kind.ERROR for frame in heard))
    assert sum(frame.kind == Kind.WELCOME for frame in heard) < 200
    gamma.close()
