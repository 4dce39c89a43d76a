"""The door that all pods of a cluster share: who is known comes in, by TLS; nobody else is answered."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from raw import DEADLINE, Gone, Raw
from sandboxless import until

from crucible.backbone.authority import fresh_authority, utc_now
from crucible.bus import doors, gate
from crucible.bus.credentials import renew, serving
from crucible.bus.gate import Gate, Visitor
from crucible.bus.wire import Frame, Kind
from crucible.model.door import Door, Doorway
from crucible_plugin import tls

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

    from conftest import Bus

HELLO = Frame(Kind.HELLO, payload=b'{"wire":[1]}')


class House:
    """A gate, and who is known by which address."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self.bus = bus
        self.authority = fresh_authority("crucible-bus-ca", utc_now())
        self.ca = folder / "ca.crt"
        self.ca.write_text(self.authority.certificate)
        issued = self.authority.server(("bus",), utc_now())
        self.tls = serving(issued.certificate, issued.key)
        self.gate = Gate(bus.broker, self._who, self.tls)
        self.known: dict[str, Visitor] = {}
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.serving = asyncio.create_task(self.gate.serve(listener))

    async def _who(self, address: IPv4Address | IPv6Address) -> Visitor | None:
        return self.known.get(str(address))

    def lodge(self, name: str, address: str) -> str:
        """Let a plugin have one pod, at an address; return the pod's uid."""
        self.bus.plugin(name)
        doorway = Doorway(Door.BUS, "here", name, f"uid-here-{name}", "0-1")
        self.known[address] = Visitor(doorway, f"pod-{name}")
        return f"pod-{name}"

    def trust(self) -> ssl.SSLContext:
        return tls.context_of(str(self.ca))

    async def plain(self, address: str) -> Raw:
        return Raw(*await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0)))

    async def join(self, address: str) -> Raw:
        streams = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.trust(), server_hostname="bus", local_addr=(address, 0)
        )
        return await Raw(*streams).greeted()

    def seated(self, name: str) -> int:
        seat = self.bus.broker.roster.find("here", name)
        return 0 if seat is None else len(seat.connections)


@pytest.fixture
async def house(bus: Bus, tmp_path: Path) -> AsyncIterator[House]:
    found = House(bus, tmp_path)
    yield found
    await Raw.hang_up()
    found.serving.cancel()
    await asyncio.gather(found.serving, return_exceptions=True)


async def test_an_address_decides_who_one_is_and_strangers_are_not_answered(house: House) -> None:
    house.lodge("one", "127.0.0.11")
    house.lodge("two", "127.0.0.12")
    await asyncio.gather(house.join("127.0.0.11"), house.join("127.0.0.12"), house.join("127.0.0.12"))
    assert (house.seated("one"), house.seated("two")) == (1, 2)
    stranger = await house.plain("127.0.0.13")
    stranger.send(HELLO)
    with pytest.raises(Gone):
        await stranger.next()
    assert house.gate.strangers == 1


async def test_a_pod_that_leaves_is_cut_off_with_all_it_began(house: House) -> None:
    pod = house.lodge("one", "127.0.0.11")
    house.lodge("two", "127.0.0.12")
    inside, stays = await house.join("127.0.0.11"), await house.join("127.0.0.12")
    coming = await house.plain("127.0.0.11")
    await until(lambda: house.gate._guests[pod].greeting)
    del house.known["127.0.0.11"]
    house.gate.leave(pod)
    await inside.gone()
    late = None
    with suppress(OSError):
        await coming.writer.start_tls(house.trust(), server_hostname="bus", ssl_handshake_timeout=DEADLINE)
        late = coming
        late.send(HELLO)
    if late is not None:
        with pytest.raises(Gone):
            await late.next()
    assert house.seated("one") == 0
    assert (await stays.call(1, "nobody.m")).kind == Kind.ERROR, "others go on"


async def test_one_pods_beginnings_take_no_others_room(house: House) -> None:
    pod = house.lodge("one", "127.0.0.11")
    house.lodge("two", "127.0.0.12")
    idle = [await house.plain("127.0.0.11") for _ in range(8)]
    await until(lambda: len(house.gate._guests[pod].greeting) == len(idle))
    with pytest.raises(OSError):
        await house.join("127.0.0.11")
    await house.join("127.0.0.12")
    await until(lambda: house.bus.faults("one").get("connections") == 1)


async def test_a_pod_that_comes_again_and_again_is_turned_away_and_reported(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "_BURST", 3)
    monkeypatch.setattr(doors, "_RATE", 0.0)
    house.lodge("one", "127.0.0.11")
    house.lodge("two", "127.0.0.12")
    for _ in range(3):
        await (await house.join("127.0.0.11")).close()
    with pytest.raises(OSError):
        await house.join("127.0.0.11")
    assert house.bus.faults("one") == {"connections": 1}
    await house.join("127.0.0.12")


async def test_many_who_are_not_known_yet_are_bounded_in_all(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is asked about slowly takes no more of the broker than so many places."""
    monkeypatch.setattr(gate, "_COMING", 4)
    house.lodge("one", "127.0.0.11")
    answered = asyncio.Event()
    who = house.gate._who

    async def slowly(address: IPv4Address | IPv6Address) -> Visitor | None:
        await answered.wait()
        return await who(address)

    monkeypatch.setattr(house.gate, "_who", slowly)
    waiting = [await house.plain("127.0.0.13") for _ in range(4)]
    await until(lambda: len(house.gate._coming) == 4)
    further = await house.plain("127.0.0.11")
    assert await further.gone() == []
    answered.set()
    for stranger in waiting:
        await stranger.gone()
    await house.join("127.0.0.11")


async def test_a_new_certificate_is_shown_to_who_comes_next(house: House) -> None:
    house.lodge("one", "127.0.0.11")
    before = await house.join("127.0.0.11")
    issued = house.authority.server(("bus", "other"), utc_now())
    renew(house.tls, issued.certificate, issued.key)
    after = await house.join("127.0.0.11")
    shown = [one.writer.get_extra_info("ssl_object").getpeercert()["serialNumber"] for one in (before, after)]
    assert shown[0] != shown[1]
    assert (await before.call(1, "nobody.m")).kind == Kind.ERROR, "who was there goes on"


async def test_at_its_end_nobody_is_left(house: House) -> None:
    house.lodge("one", "127.0.0.11")
    raw = await house.join("127.0.0.11")
    house.serving.cancel()
    await raw.gone()
    with pytest.raises(OSError):
        await house.plain("127.0.0.11")
