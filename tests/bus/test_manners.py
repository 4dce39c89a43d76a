"""Clients that break the rules, flood, or pretend: limited, counted, and no trouble for others."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
import time
from typing import TYPE_CHECKING

import pytest
from raw import Gone, Raw, words
from sandboxless import until

from crucible.bus import doors, ledger, wire
from crucible.bus.connection import Connection
from crucible.bus.room import Room
from crucible.bus.wire import Frame, Kind
from crucible.model.door import Door, Doorway

if TYPE_CHECKING:
    from conftest import Bus

HELLO = wire.encode(Frame(Kind.HELLO, payload=b'{"wire":[1]}'))

METHODS = [f"m{number}" for number in range(257)]
BREACHES = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\xff" * 64,
    wire.encode(Frame(Kind.CALL, 1, "$bus.ping")),
    wire.encode(Frame(Kind.HELLO, payload=b"[1]")),
    wire.encode(Frame(Kind.HELLO, payload=b"{")),
    wire.encode(Frame(Kind.HELLO, payload=b"[" * 30_000)),
    wire.encode(Frame(Kind.HELLO, payload=b'{"wire":1}')),
    wire.encode(Frame(Kind.HELLO, payload=b'{"wire":[2]}')),
    wire.encode(Frame(Kind.HELLO, payload=b'{"wire":[1],"client":"' + b"x" * 33_000 + b'"}')),
    wire.encode(Frame(Kind.HELLO, payload=json.dumps({"wire": [1], "methods": METHODS}).encode())),
    wire.encode(Frame(Kind.HELLO, payload=b'{"wire":[1],"methods":["a b"]}')),
    wire.encode(Frame(Kind.HELLO, payload=b'{"wire":[1],"methods":{}}')),
    wire.encode(Frame(Kind.HELLO, payload=b'{"wire":[1],"window":0}')),
    wire.encode(Frame(Kind.HELLO, payload=b'{"wire":[1],"window":true}')),
    wire.encode(Frame(Kind.HELLO, payload=b'{"wire":[1],"namespace":"A"}')),
    HELLO + HELLO,
    HELLO + wire.encode(Frame(Kind.WELCOME)),
    HELLO + wire.encode(Frame(Kind.MESSAGE, 1, "a")),
    HELLO + wire.encode(Frame(Kind.CALL, 2, "$bus.ping")),
    HELLO + wire.encode(Frame(Kind.CALL, 1, "slow.m")) * 2,
    HELLO + wire.encode(Frame(Kind.SUBSCRIBE, 1, "a")) * 2,
    HELLO + wire.encode(Frame(Kind.SUBSCRIBE, 2, "a")),
    HELLO + wire.encode(Frame(Kind.CREDIT, 1, payload=b"1")),
    HELLO + wire.encode(Frame(Kind.CALL, 1, "slow.m", headers={"from": "$host"})),
    HELLO + wire.encode(Frame(Kind.PUBLISH, 1, "a", headers={"missed": "1"})),
    HELLO + (wire.LENGTH_LIMIT + 1).to_bytes(4, "big") + b"x" * 100,
]


@pytest.mark.parametrize("bytes_sent", BREACHES)
async def test_who_breaks_the_rules_is_told_and_cut_off(bus: Bus, bytes_sent: bytes) -> None:
    await bus.add("slow", "m")
    client = await Raw.connect(bus.plugin("rude", call=("slow.m",), subscribe=("a",), publish=("a",)))
    client.writer.write(bytes_sent)
    told = await client.gone()
    assert words(told[-1])[:2] == ("ERROR", 0)
    assert told[-1].name in ("Malformed", "TooLarge", "UnsupportedVersion")
    assert bus.faults("rude")["malformed"] == 1
    await client.close()


async def test_who_speaks_another_version_is_told_which_one_is_spoken(bus: Bus) -> None:
    client = await Raw.connect(bus.plugin("new"))
    answer = await client.ask(Frame(Kind.HELLO, payload=b'{"wire":[2,3]}'))
    assert (words(answer), answer.payload) == (("ERROR", 0, "UnsupportedVersion"), b"spoken here: 1")
    both = await Raw.connect(bus.plugin("both"))
    assert (await both.ask(Frame(Kind.HELLO, payload=b'{"wire":[2,1]}'))).kind == Kind.WELCOME


async def test_random_bytes_do_no_harm(bus: Bus) -> None:
    path, dice = bus.plugin("noisy"), random.Random(7)
    for _ in range(25):
        client = await Raw.connect(path)
        client.writer.write(HELLO * dice.randint(0, 1) + dice.randbytes(dice.randint(8, 300)))
        client.writer.write_eof()
        try:
            await client.gone()
        except wire.BrokenFrame as error:
            raise AssertionError from error
        await client.close()
    polite = await bus.add("polite")
    assert words(await polite.call(1, "$bus.ping")) == ("ANSWER", 1, "")


async def test_who_says_nothing_or_half_a_frame_is_not_waited_for(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crucible.bus.connection.HELLO_TIME", 1.0)
    path = bus.plugin("slow")
    patient = await Raw.greet(path)
    silent = await Raw.connect(path)
    assert words((await silent.gone())[0]) == ("ERROR", 0, "Malformed")
    half = await Raw.greet(path)
    half.writer.write(wire.encode(Frame(Kind.CALL, 1, "$bus.ping"))[:9])
    assert words((await half.gone())[0]) == ("ERROR", 0, "Malformed")
    assert words(await patient.call(1, "$bus.ping")) == ("ANSWER", 1, "")
    for client in (silent, half, patient):
        await client.close()


async def test_the_ninth_connection_of_an_instance_is_closed(bus: Bus) -> None:
    path = bus.plugin("many")
    for _ in range(8):
        await bus.join(path)
    ninth = await Raw.connect(path)
    assert await ninth.gone() == []
    assert bus.faults("many") == {"connections": 1}
    await bus.clients.pop().close()
    await bus.join(path)
    await ninth.close()


async def test_who_connects_again_and_again_is_slowed(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "_BURST", 4)
    monkeypatch.setattr(doors, "_RATE", 4.0)
    monkeypatch.setattr(doors, "_REST", 0.02)
    path = bus.plugin("eager")
    for _ in range(12):
        client = await Raw.connect(path)
        await client.close()
    late = await bus.join(path)
    assert words(await late.call(1, "$bus.ping")) == ("ANSWER", 1, "")
    assert bus.faults("eager")["connections"] >= 1


async def test_another_user_is_turned_away(bus: Bus) -> None:
    bus.plugin("mine")
    uid = bus.members["here/mine"].uid
    path = bus.open(Doorway(Door.BUS, "here", "mine", uid, "strange", os.geteuid() + 1))
    stranger = await Raw.connect(path)
    assert await stranger.gone() == []
    assert bus.faults("mine") == {"stranger": 1}
    await stranger.close()
    await bus.join(bus.open(Doorway(Door.BUS, "here", "mine", uid, "own", os.geteuid())))


async def test_a_plugin_is_who_its_socket_says_whatever_it_claims(bus: Bus) -> None:
    asked = await bus.add("notes", "m")
    liar = await bus.join(bus.plugin("liar", call=("notes.m",)), namespace="there", plugin="$host")
    liar.send(Frame(Kind.CALL, 1, "notes.m"))
    assert (await asked.next()).headers == {"from": "liar"}


async def ask_for_ever(client: Raw) -> None:
    for ident in itertools.count(1, 2):
        client.send(Frame(Kind.CALL, ident, "$bus.ping", b"x" * 50_000))
        await client.writer.drain()


async def test_a_caller_that_never_reads_its_answers_is_cut_off(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crucible.bus.connection.HELLO_TIME", 0.2)
    client = await bus.add("deaf")
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    with pytest.raises(ConnectionError):
        await ask_for_ever(client)
    assert bus.faults("deaf") == {"unread": 1}


async def test_what_deaf_ones_keep_waiting_is_bounded_in_all_and_others_still_hear(bus: Bus) -> None:
    limit = 256 * 1024
    bus.broker.room = Room(limit)
    publisher = await bus.add("publisher", publish=("news",))
    for number in range(4):
        deaf = await bus.add(f"deaf{number}", subscribe=("news",))
        await deaf.ask(Frame(Kind.SUBSCRIBE, 1, "news"))
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for ident in range(1, 401, 2):  # 4 MB for each, of which a socket and its buffer hold a part
        await publisher.ask(Frame(Kind.PUBLISH, ident, "news", b"x" * 20_000))
    held = bus.broker.room.total
    assert limit <= held <= limit + 4 * 21_000
    assert all(bus.faults(f"deaf{number}")["missed"] for number in range(4))
    listener = await bus.add("listener", subscribe=("news",))
    await listener.ask(Frame(Kind.SUBSCRIBE, 1, "news"))
    await publisher.ask(Frame(Kind.PUBLISH, 401, "news", b"heard"))
    assert (await listener.next()).payload == b"heard"
    for seat in list(bus.broker.roster):
        for connection in list(seat.connections):
            if seat.name.startswith("deaf"):
                connection.close()
                connection._transport.abort()  # type: ignore[union-attr]
    await until(lambda: bus.broker.room.total == 0)


async def test_parts_of_frames_are_bounded_in_all_and_others_still_send_theirs(bus: Bus) -> None:
    limit = 1024 * 1024
    inbound = bus.broker.inbound = Room(limit, 8)
    half = wire.encode(Frame(Kind.PUBLISH, 1, "news", b"x" * 1_000_000))[:300_000]
    for number in range(4):
        path = bus.plugin(f"greedy{number}", publish=("news",))
        for _ in range(8):  # 9.6 MB in all
            client = await Raw.greet(path)
            client.writer.write(half)
            await asyncio.sleep(0)
    await until(lambda: all(bus.faults(f"greedy{number}").get("overloaded") for number in range(4)))
    held = [one for seat in bus.broker.roster for one in seat.connections if one._decoder.held]
    assert inbound.total == sum(one._decoder.held for one in held)
    assert limit // 2 <= inbound.total <= limit + 4 * limit // 8 + 2 * 65536
    sender = await bus.add("polite", publish=("news",))
    large = wire.encode(Frame(Kind.PUBLISH, 1, "news", b"x" * 100_000))
    sender.writer.write(large[:80_000])
    await until(
        lambda: any(one._decoder.held for one in bus.broker.roster.find("here", "polite").connections)
    )  # type: ignore[union-attr]
    sender.writer.write(large[80_000:])
    assert words(await sender.next()) == ("ANSWER", 1, "")
    await Raw.hang_up()
    await until(lambda: inbound.total == 0)


async def test_whom_there_is_no_room_for_is_told_so_and_cut_off(bus: Bus) -> None:
    bus.broker.inbound = Room(0)
    client = await bus.add("large", publish=("news",))
    client.writer.write(wire.encode(Frame(Kind.PUBLISH, 1, "news", b"x" * 100_000))[:-1])
    assert words((await client.gone())[-1]) == ("ERROR", 0, "Overloaded")
    assert bus.faults("large") == {"overloaded": 1}
    assert bus.broker.inbound.total == 0


async def test_whole_frames_that_line_up_are_bounded_for_each_connection(bus: Bus) -> None:
    clients = [await bus.add(f"flooder{number}", publish=("news",)) for number in range(16)]
    most, line_up = 0, Connection.line_up

    def counted(connection: Connection, size: int) -> None:
        nonlocal most
        line_up(connection, size)
        most = max(most, connection.pending_bytes)

    frame = wire.encode(Frame(Kind.PUBLISH, 0, "news", b"x" * 60_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "line_up", counted)
        for client in clients:
            client.writer.write(frame * 40)
            client.send(Frame(Kind.CALL, 1, "$bus.ping"))
        for client in clients:
            assert words(await client.next()) == ("ANSWER", 1, "")
    assert 60_000 <= most <= 120_000, "it read on before what it had read was handled"
    assert bus.broker.inbound.total == 0
    assert all(bus.broker.ledger.of("here", f"flooder{n}").published == 40 for n in range(16))


async def test_what_is_written_and_not_read_counts_too(bus: Bus) -> None:
    room = bus.broker.room = Room(0)
    deaf = await bus.add("deaf", subscribe=("news",))
    await deaf.ask(Frame(Kind.SUBSCRIBE, 1, "news"))
    publisher = await bus.add("publisher", publish=("news",))
    room.take("here/deaf", 1)  # it has something already, and more than nothing is too much
    await publisher.ask(Frame(Kind.PUBLISH, 1, "news", b"x" * 100_000))
    assert bus.faults("deaf") == {"missed": 1}
    await publisher.ask(Frame(Kind.PUBLISH, 3, "news", b"small"))
    assert (await deaf.next()).payload == b"small"
    room.give_back("here/deaf", 1)


FLOOD = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
sock.sendall(bytes.fromhex(sys.argv[2]))
print("begun", flush=True)
batch = bytes.fromhex(sys.argv[3]) * 500
while True:
    sock.sendall(batch)
"""


async def test_a_flooder_delays_others_only_so_much_and_is_told_of(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "FLOOD", 100)
    asked = await bus.add("echo", "say")
    asker = await bus.add("asker", call=("echo.say",))
    message = wire.encode(Frame(Kind.PUBLISH, 0, "noise", b"x" * 64, priority=wire.Priority.CRITICAL))
    path = str(bus.plugin("flooder", publish=("noise",)))
    words_of_it = (sys.executable, "-c", FLOOD, path, HELLO.hex(), message.hex())
    flooder = await asyncio.create_subprocess_exec(
        *words_of_it, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert flooder.stdout is not None
        assert await flooder.stdout.readline() == b"begun\n"
        waits = []
        for ident in range(1, 401, 2):
            began = time.perf_counter()
            asker.send(Frame(Kind.CALL, ident, "echo.say"))
            asked.send(Frame(Kind.ANSWER, (await asked.next()).id))
            await asker.next()
            waits.append(time.perf_counter() - began)
        await until(lambda: "flood" in bus.faults("flooder"))
    finally:
        flooder.kill()
        await flooder.wait()
    assert bus.broker.ledger.of("here", "flooder").published > 200
    assert sorted(waits)[len(waits) // 2] < 1
    assert (bus.faults("asker"), bus.faults("echo")) == ({}, {})


async def test_gone_is_what_a_closed_connection_is(bus: Bus) -> None:
    client = await bus.add("brief")
    bus.broker.shut("uid-here-brief/0-1/bus")
    with pytest.raises(Gone):
        await client.next()
