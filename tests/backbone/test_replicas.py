"""Replicas of a cluster's broker: one bus, whichever of them a plugin is connected to."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from backboned import until
from cryptography.hazmat.primitives import serialization
from raw import Raw, words

from crucible import replicated
from crucible.backbone import reloading
from crucible.backbone.authority import fresh_authority, utc_now
from crucible.bus import wire
from crucible.bus.broker import Broker
from crucible.bus.wire import Frame, Kind
from crucible.core import backbone
from crucible.errors import Unavailable

if TYPE_CHECKING:
    from replicas import Replicas

    from crucible.bus.nats import Nats


def behind_a_passphrase(key: str) -> str:
    found = serialization.load_pem_private_key(key.encode(), None)
    how = serialization.BestAvailableEncryption(b"secret")
    text = found.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
    return text.decode()


async def test_a_plugin_is_the_same_whichever_replica_it_is_connected_to(replicas: Replicas) -> None:
    one, two = replicas.one, replicas.two
    notes = await replicas.add(one, "notes", call=("tokenizer.*",), publish=("notes.>",))
    tokenizer = await replicas.add(two, "tokenizer", "split", subscribe=("notes.>",))
    await until(lambda: one.sees("bus-two", "tokenizer"))
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split", b"a b", deadline=20_000))
    asked = await tokenizer.next()
    assert (asked.name, asked.payload, asked.headers["from"]) == ("split", b"a b", "notes")
    tokenizer.send(Frame(Kind.ERROR, asked.id, "Broken", b"no words"))
    ended = await notes.next()
    assert (ended.name, ended.headers["from"]) == ("Broken", "tokenizer"), "as on one replica"
    await tokenizer.ask(Frame(Kind.SUBSCRIBE, 3, "notes.*"))
    await notes.ask(Frame(Kind.PUBLISH, 3, "notes.saved", b"7"))
    heard = await tokenizer.next()
    assert (heard.name, heard.payload, heard.headers["from"]) == ("notes.saved", b"7", "notes")
    # What neither grants is refused where it is said, what is not there is told as such.
    assert words(await notes.call(5, "other.split"))[2] == "NotPermitted"
    assert words(await notes.call(7, "tokenizer.join"))[2] == "NoSuchMethod"


async def test_durable_events_are_one_plugins_whichever_replica_it_takes_them_from(
    replicas: Replicas,
) -> None:
    notes = await replicas.add(replicas.one, "notes", publish=("notes.>",))
    index = await replicas.add(replicas.two, "index", subscribe=("notes.>",))
    again = await Raw.greet(replicas.one.plugin("index", subscribe=("notes.>",)))
    index.send(Frame(Kind.CALL, 1, "$events.take", headers={"pattern": "notes.>"}, deadline=20_000))
    await until(lambda: replicas.two.far.durable._consumers)
    for number in range(2):
        put = {"subject": "notes.saved", "id": f"{number}"}
        answer = await notes.call(2 * number + 1, "$events.put", b"%d" % number, headers=put)
        assert answer.kind == Kind.ANSWER
    first = await index.next()
    assert (first.payload, first.headers["from"], first.headers["sequence"]) == (b"0", "notes", "1")
    second = await again.call(1, "$events.take", headers={"pattern": "notes.>"}, deadline=20_000)
    assert second.payload == b"1", "it is one subscription"


async def test_a_replica_judges_by_the_manifest_whatever_another_says(replicas: Replicas) -> None:
    """One that was taken over, or has not heard yet: who may not call, publish or be somebody is refused."""
    tokenizer = await replicas.add(replicas.two, "tokenizer", "split", subscribe=("notes.>",))
    await replicas.add(replicas.one, "notes", call=("tokenizer.split",), publish=("notes.a",))
    await tokenizer.ask(Frame(Kind.SUBSCRIBE, 3, "notes.*"))
    rogue = await replicas.server.client(name="bus-rogue")
    heard: list[Frame] = []
    rogue._heard = lambda message: heard.extend(wire.frames_of(message.payload))
    rogue.subscribe(backbone.to("bus-rogue", "*"))
    await rogue.flush()
    for ident, name in (
        (1, "here/notes/tokenizer.join"),
        (3, "here/nobody/tokenizer.split"),
        (5, "here/$host/a.b"),
    ):
        _say(rogue, Frame(Kind.CALL, ident, name, deadline=5000))
    await until(lambda: sum(one.kind == Kind.ERROR for one in heard) == 3)
    assert {one.name for one in heard if one.kind == Kind.ERROR} == {"NotPermitted"}
    for plugin, subject in (("notes", "notes.b"), ("nobody", "notes.a"), ("notes", "crucible.events.x")):
        frame = wire.encode(Frame(Kind.PUBLISH, 0, subject, b"forged"))
        rogue.publish("", 1, backbone.say("here", "bus-rogue", plugin, subject), frame)
    _say(rogue, Frame(Kind.CALL, 7, "here/notes/tokenizer.split", b"last", deadline=5000))
    assert (await tokenizer.next()).payload == b"last", "what is granted comes, and nothing before it"
    rogue.close()


def _say(rogue: Nats, frame: Frame) -> None:
    rogue.publish("", 1, backbone.to("bus-two", "bus-rogue"), b"\0" + wire.encode(frame)[1:])


async def test_what_is_granted_no_more_is_refused_at_once_and_a_plugin_that_moves_is_found(
    replicas: Replicas,
) -> None:
    one, two = replicas.one, replicas.two
    notes = await replicas.add(one, "notes", call=("tokenizer.split",))
    tokenizer = await replicas.add(two, "tokenizer", "split")
    await until(lambda: one.sees("bus-two", "tokenizer"))
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split", deadline=20_000))
    asked = await tokenizer.next()
    replicas.grant("notes")
    assert words(await notes.next())[2] == "NotPermitted"
    assert (await tokenizer.next()).kind == Kind.CANCEL
    assert asked.headers["from"] == "notes"
    assert words(await notes.call(3, "tokenizer.split"))[2] == "NotPermitted"
    replicas.grant("notes", call=("tokenizer.split",))
    await tokenizer.close()
    await until(lambda: not one.sees("bus-two", "tokenizer"))
    assert words(await notes.call(5, "tokenizer.split"))[2] == "Unavailable"
    moved = await Raw.greet(one.plugin("tokenizer"), methods=["split"])
    notes.send(Frame(Kind.CALL, 7, "tokenizer.split", deadline=20_000))
    assert (await moved.next()).name == "split"


async def test_one_that_is_gone_is_let_go_of_before_its_calls_are_out_of_time(replicas: Replicas) -> None:
    one, two = replicas.one, replicas.two
    notes = await replicas.add(one, "notes", call=("tokenizer.split",))
    tokenizer = await replicas.add(two, "tokenizer", "split")
    await until(lambda: one.sees("bus-two", "tokenizer"))
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split", deadline=600_000))
    await tokenizer.next()
    connection = two.far.nats
    assert connection is not None
    two.keeping.cancel()  # as if it were killed: the server sees its connection end
    ended = await notes.next()
    assert words(ended)[2] == "Unavailable"
    assert "bus-two" in ended.payload.decode()
    assert words(await notes.call(3, "tokenizer.split"))[2] == "Unavailable"


async def test_one_that_goes_says_so(replicas: Replicas) -> None:
    one, two = replicas.one, replicas.two
    await replicas.add(two, "tokenizer", "split")
    await until(lambda: one.sees("bus-two", "tokenizer"))
    for connection in list(two.broker.roster.find("here", "tokenizer").connections):  # type: ignore[union-attr]
        connection.close()
    await until(lambda: not any(seat.connections for seat in two.broker.roster))
    await two.far.farewell()
    await until(lambda: not one.sees("bus-two", "tokenizer"))


async def test_the_server_lets_in_nobody_but_brokers_and_only_to_what_is_theirs(replicas: Replicas) -> None:
    for end in ("tls", "nats-server"):
        with pytest.raises(Unavailable):
            await replicas.server.client(end)
    broker = await replicas.server.client()
    broker.publish("", 1, "$JS.API.STREAM.DELETE.CRUCIBLE-here", b"")
    broker.publish("", 1, "other.subject", b"")
    await broker.flush()
    assert len(broker.refused) == 2
    broker.close()
    assert json.loads((replicas.server.place / "nats.json").read_text())["tls"]["min_version"] == "1.3"


async def test_as_many_servers_keep_an_event_as_were_asked_for(replicas: Replicas) -> None:
    """There is one: that it refuses says what it was asked."""
    replicas.one.far.become(replicas.server.joining("bus-one"), kindred=3)
    notes = await replicas.add(replicas.one, "notes", publish=("notes.>",))
    answer = await notes.call(1, "$events.put", b"0", headers={"subject": "notes.saved"})
    assert "replicas > 1" in answer.payload.decode()


async def test_certificates_change_under_connections_and_so_does_who_signs_them(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicated, "LOOK", 0.01)
    server, broker = replicas.server, Broker(asyncio.get_running_loop())
    place = replicated.backbone_at(f"tls://localhost:{server.port}", server.folder("nats-client"), 1)
    replica = replicated.Replica(broker.far, place)
    works = [asyncio.create_task(work) for work in (replica.keep(), broker.far.keep())]
    assert "not reached" in replica.unready
    await until(lambda: not replica.unready)
    joined = broker.far.nats
    assert joined is not None
    before = server.authority.certificate
    # Half of a change is none: the key is not the certificate's yet.
    key = server.folder("nats-client") / "tls.key"
    whole = key.read_text()
    key.write_text(server.authority.server(("localhost",), utc_now()).key)
    await until(lambda: "not the key of" in replica.problem)
    key.write_text(whole)
    await until(lambda: not replica.problem)
    key.write_text(behind_a_passphrase(whole))
    await until(lambda: "not the key of" in replica.problem)
    key.write_text(whole)
    await until(lambda: not replica.problem)
    server.renew(fresh_authority("another", utc_now()), before)
    shown = server.folder("nats-client").joinpath("tls.crt").read_text()
    await until(lambda: broker.far._joining is not None and broker.far._joining.certificate == shown)
    assert server.process is not None
    assert reloading.tell(server.process.pid)
    await until(lambda: "Reloaded" in server.log())
    (await server.client()).close()
    await joined.flush()
    assert not joined.lost.done(), "nobody's connection ends"
    joined.close()
    await until(lambda: broker.far.nats not in {None, joined})
    for work in works:
        work.cancel()
    await asyncio.gather(*works, return_exceptions=True)
    broker.calls.deadlines.close()
    assert not replica.unready, "an outage sends nobody away"
