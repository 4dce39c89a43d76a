"""Doors that speak TLS: not served before the certificate is told, and renewed without cutting anybody."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from crucible.backbone import local
from crucible.backbone.authority import authority_in, expiry, signed_by, utc_now
from crucible.backbone.local import Seal
from crucible.bus.service import BusService
from crucible.errors import Unavailable
from crucible.model.door import BROKER, Door, Doorway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

DOORWAY = Doorway(Door.BUS, "here", "p", "uid-p", "0-1", tls=True)


class Place:
    """A service, and a door to it."""

    def __init__(self, folder: Path) -> None:
        self.service = BusService(lambda _: None)
        self.seal = Seal(folder / "authority")
        self.path = str(folder / "bus.sock")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.load_verify_locations(cadata=self.seal.authority())

    def listener(self) -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        one.bind(self.path)
        one.listen(4)
        return one

    def admit(self, grant: Mapping[str, object], *listeners: socket.socket) -> None:
        self.service.admit(DOORWAY, grant, listeners)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        """Speak TLS, and return what the broker shows too."""
        reader, writer = await asyncio.open_unix_connection(
            self.path, ssl=self.context, server_hostname=BROKER
        )
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return reader, writer, shown


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    yield made
    made.service.dismiss(DOORWAY.key)
    made.service._joined.cancel()
    await asyncio.gather(made.service._joined, return_exceptions=True)


async def test_nobody_is_served_before_the_certificate_is_told_and_then_who_waited(place: Place) -> None:
    place.admit({}, place.listener())
    coming = asyncio.create_task(place.connect())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not coming.done()
    place.admit({"tls": place.seal.serving()})
    _, writer, _ = await coming
    writer.close()


async def test_a_new_certificate_is_shown_to_who_comes_and_nobody_is_cut_off(place: Place) -> None:
    place.admit({"tls": place.seal.serving()}, place.listener())
    reader, writer, first = await place.connect()
    place.seal._issued = None  # it was to end soon
    place.admit({"tls": place.seal.serving()})
    place.admit({})  # a word that says nothing of it changes nothing
    _, other, second = await place.connect()
    assert first != second
    writer.write(b"\0\0\0\0")  # no frame: it is answered on the connection that was there before
    assert b"shorter than its own head" in await reader.read(1000)
    writer.close()
    other.close()


async def test_nobody_who_speaks_plainly_is_served_there(place: Place) -> None:
    place.admit({"tls": place.seal.serving()}, place.listener())
    reader, writer = await asyncio.open_unix_connection(place.path)
    writer.write(b"\0\0\0\x10" + bytes(16))
    said = await reader.read()
    assert b"Malformed" not in said  # a TLS alert at most
    writer.close()


def test_the_certificate_is_the_authoritys_and_made_anew_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = Seal(tmp_path / "a")
    first = seal.serving()
    assert seal.serving() == first
    assert signed_by(first["certificate"], seal.authority())
    assert Seal(tmp_path / "a").authority() == seal.authority()
    later = utc_now() + timedelta(days=70)
    monkeypatch.setattr(local, "utc_now", lambda: later)
    second = seal.serving()
    ends = expiry(second["certificate"])
    assert second != first
    assert ends is not None
    assert ends > later + timedelta(days=80)
    assert authority_in(tmp_path / "a", later).certificate == seal.authority()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("no folder")
    with pytest.raises(Unavailable, match="encryptLocal"):
        Seal(tmp_path / "a").authority()


def test_the_broker_loads_neither_manifests_nor_what_makes_certificates() -> None:
    program = "import sys, crucible.bus.service; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "crucible.bus.broker" in loaded
    assert loaded & {"pydantic", "cryptography", "yaml", "crucible.model.manifest"} == set()
