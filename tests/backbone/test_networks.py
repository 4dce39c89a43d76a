"""Two machines in two networks, with everything as it runs for people: keeper, server, confined brokers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from networks import ADDRESSES, Networks, missing, packets
from raw import DEADLINE, Gone, Raw, words

from crucible.backbone.keeper import invite
from crucible.backbone.machines import Machine, fresh_token
from crucible.backbone.settings import pass_text
from crucible.bus.wire import Frame, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

MACHINE = str(Path(__file__).parents[1] / "support" / "machine.py")
SHARE = "share: {here: {machines: ['*'], call: [tokenizer.split], publish: ['notes.>']}}\n"
SECRET = b"what-nobody-may-read"
PLAIN = (SECRET, b"tokenizer", b"notes.saved", b"CONNECT ", b"INFO {", b"PUB ", b"crucible", b"BEGIN")
"""What would be seen on the wire if any of it went in plain text."""
TCP, APPLICATION_DATA = 6, 0x17
LINES = 4223
"""Where brokers come to each other directly: the port next to the server's, unless the settings say more."""


@pytest.fixture
def networks() -> Iterator[Networks]:
    why = missing()
    if why:
        pytest.skip(why)
    with Networks() as made:
        yield made


def settle(folder: Path, settings: str, plugins: dict[str, dict[str, list[str]]]) -> Path:
    """Write what a machine needs, return its settings."""
    folder.mkdir()
    (folder / "plugins.json").write_text(json.dumps(plugins))
    file = folder / "backbone.yaml"
    file.write_text(settings + SHARE)
    return file


async def again(path: Path, **hello: object) -> Raw:
    """Connect as a plugin does: again and again until it is let in."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                return await Raw.greet(path, **hello)
            except (Gone, AssertionError, OSError):
                await asyncio.sleep(0.02)


async def until_called(client: Raw, name: str, ident: int) -> int:
    """Call until it is answered: machines find each other in their own time."""
    async with asyncio.timeout(DEADLINE):
        while (await client.call(ident, name, SECRET)).kind != Kind.ANSWER:
            ident += 2
            await asyncio.sleep(0.05)
    return ident + 2


async def until_called_directly(client: Raw, ident: int, heard: Path) -> int:
    """Call until what was called with is seen to go by the line: it comes up in its own time."""
    large = SECRET * 5000
    async with asyncio.timeout(DEADLINE):
        while True:
            before = by_line(heard)
            assert (await client.call(ident, "tokenizer.split", large)).payload == large
            ident += 2
            if by_line(heard) - before > len(large):
                return ident
            await asyncio.sleep(0.05)


def by_line(heard: Path) -> int:
    """Return how many bytes went by the line."""
    return sum(len(payload) for packet in packets(heard) if (payload := _carried(packet, LINES)))


async def echo(client: Raw) -> None:
    while True:
        frame = await client.next()
        if frame.kind == Kind.CALL:
            client.send(Frame(Kind.ANSWER, frame.id, payload=frame.payload))


async def test_plugins_of_two_machines_talk_and_nothing_of_it_can_be_read_on_the_way(
    networks: Networks, tmp_path: Path
) -> None:
    alpha, beta = tmp_path / "alpha", tmp_path / "beta"
    listen = f"machine: alpha\nlisten: '{ADDRESSES[0]}:4222'\n"
    here = settle(alpha, listen, {"notes": {"call": ["tokenizer.*"], "subscribe": ["notes.>"]}})
    ears = [networks.listen(number, tmp_path / f"heard-{number}") for number in (0, 1)]
    networks.start(0, sys.executable, MACHINE, str(alpha), str(here))
    async with asyncio.timeout(DEADLINE):
        while not (alpha / "backbone" / "address").exists():
            await asyncio.sleep(0.02)
    there = settle(beta, "pass: beta.pass\n", {"tokenizer": {"publish": ["notes.>"]}})
    joining = invite(alpha / "backbone", Machine("beta", fresh_token(), ("here",), ""), 1)
    (beta / "beta.pass").write_text(pass_text(joining))
    networks.start(1, sys.executable, MACHINE, str(beta), str(there))
    tokenizer = await again(beta / "tokenizer" / "bus.sock", methods=["split", "secret"])
    editor = await again(beta / "tokenizer" / "bus.sock")
    notes = await again(alpha / "notes" / "bus.sock")
    serving = asyncio.create_task(echo(tokenizer))
    ident = await until_called(notes, "tokenizer.split", 1)
    ident = await until_called_directly(notes, ident, tmp_path / "heard-0")
    assert words(await notes.call(ident, "tokenizer.secret", SECRET)) == ("ERROR", ident, "NotPermitted")
    assert words(await notes.ask(Frame(Kind.SUBSCRIBE, ident + 2, "notes.>"))) == ("ANSWER", ident + 2, "")
    answer = await editor.call(1, "$events.put", SECRET, headers={"subject": "notes.saved"})
    assert words(answer) == ("ANSWER", 1, "")
    heard = await notes.next()
    assert (heard.kind, heard.payload, heard.headers["from"]) == (Kind.MESSAGE, SECRET, "tokenizer@beta")
    await asyncio.to_thread(_say_in_plain_text, networks)
    serving.cancel()
    await Raw.hang_up()
    await _look(ears, [tmp_path / f"heard-{number}" for number in (0, 1)])


def _say_in_plain_text(networks: Networks) -> None:
    """Send what the ears must hear, so that what they did not hear counts."""
    code = (
        "import socket; mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        f"mouth.sendto({SECRET!r}, ('{ADDRESSES[0]}', 9))"
    )
    subprocess.run(networks.inside(1, sys.executable, "-c", code), check=True)


async def _look(ears: list[subprocess.Popen[str]], files: list[Path]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not all(any(SECRET in packet for packet in packets(file)) for file in files):
            await asyncio.sleep(0.02)
    assert all(ear.poll() is None for ear in ears)
    for file in files:
        tcp = [packet for packet in packets(file) if packet[12:14] == b"\x08\x00" and packet[23] == TCP]
        carried = [payload for packet in tcp if (payload := _payload(packet))]
        assert len(carried) > 10
        assert any(payload[0] == APPLICATION_DATA for payload in carried)
        assert not [word for word in PLAIN for payload in carried if word in payload]


def _carried(packet: bytes, port: int) -> bytes:
    """Return what a packet carries to or from a port of TCP."""
    if packet[12:14] != b"\x08\x00" or packet[23] != TCP:
        return b""
    tcp = packet[14 + (packet[14] & 15) * 4 :]
    ports = {int.from_bytes(tcp[:2], "big"), int.from_bytes(tcp[2:4], "big")}
    return _payload(packet) if port in ports else b""


def _payload(packet: bytes) -> bytes:
    """Return what a TCP packet carries."""
    ip = packet[14:]
    total, head = int.from_bytes(ip[2:4], "big"), (ip[0] & 15) * 4
    tcp = ip[head:total]
    return tcp[(tcp[12] >> 4) * 4 :]
