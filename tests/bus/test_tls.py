"""TLS between a plugin and its broker: everyone's own words, read by nobody else and said to nobody else."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from raw import DEADLINE, Gone, Raw
from sandboxless import PROGRAMS, REPOSITORY, Program, until

from crucible.backbone.authority import Authority, fresh_authority, utc_now
from crucible.bus import doors
from crucible.bus.credentials import serving
from crucible.bus.doors import Entrance
from crucible.bus.wire import Frame, Kind
from crucible.hosts.wasm_bus.reach import reach as reach_wasm
from crucible.model.door import Door, Doorway
from crucible_plugin import tls
from crucible_plugin.aio.client import _reach as reach_aio
from crucible_plugin.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from conftest import Bus

LANGUAGES = ("python", "asyncio", "javascript")
EVERYTHING = {"python": "everything.py", "asyncio": "everything_aio.py", "javascript": "everything.mjs"}
SECRET = "the-words-that-nobody-else-may-read"
REACH_JS = """
const { reach } = require(process.argv[1]);
let socket;
try {
  socket = reach(process.argv[2], process.argv[3], () => { console.log("reached"); socket.destroy(); });
  socket.on("error", (error) => console.log(error.message));
  socket.on("close", () => console.log("closed"));
} catch (error) {
  console.log(error.message);
}
"""


class Tap:
    """Stands between two, passes on what they say, and keeps it."""

    def __init__(self, port: int) -> None:
        self.heard = bytearray()
        self.port = 0
        self._to = port
        self._server: asyncio.Server | None = None

    async def open(self) -> Tap:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(self._copy(reader, there[1]), self._copy(there[0], writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                self.heard += data
                writer.write(data)
                await writer.drain()
        writer.close()


class Hall:
    """A broker's door that speaks TLS, by TCP or by a Unix socket, and the authority that vouches for it."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self.bus = bus
        self.folder = folder
        self.authority = fresh_authority("crucible-bus-ca", utc_now())
        self.ca = self.written(self.authority, "ca.crt")

    def written(self, authority: Authority, name: str) -> Path:
        path = self.folder / name
        path.write_text(authority.certificate)
        return path

    def context(self, *hosts: str) -> ssl.SSLContext:
        issued = self.authority.server(hosts or ("127.0.0.1", "crucible-bus"), utc_now())
        return serving(issued.certificate, issued.key)

    def listen(self, name: str, *hosts: str, plain: bool = False, **grants: Any) -> int:
        """Let a plugin come by TCP; return the port."""
        self.bus.plugin(name, **grants)
        listener = socket.create_server(("127.0.0.1", 0))
        doorway = Doorway(Door.BUS, "here", name, f"uid-here-{name}", "0-2")
        context = None if plain else self.context(*hosts)
        self.bus.doors[f"tcp-{name}-{len(self.bus.doors)}"] = Entrance(
            self.bus.broker, doorway, listener, context
        )
        return int(listener.getsockname()[1])

    def listen_unix(self, name: str) -> Path:
        self.bus.plugin(name)
        path = self.folder / f"{name}-tls.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(16)
        doorway = Doorway(Door.BUS, "here", name, f"uid-here-{name}", "0-3")
        self.bus.doors[f"unix-{name}"] = Entrance(self.bus.broker, doorway, listener, self.context())
        return path


@pytest.fixture
def hall(bus: Bus, tmp_path: Path) -> Hall:
    return Hall(bus, tmp_path)


def command(language: str, folder: Path) -> tuple[str, ...]:
    source = PROGRAMS / EVERYTHING[language]
    if language != "javascript":
        return (sys.executable, "-s", "-S", "-B", "-u", str(source))
    (folder / "plugin").mkdir()
    (folder / "node_modules").symlink_to(REPOSITORY / "plugin-images/javascript/sdk")
    return (node(), str(shutil.copy(source, folder / "plugin")))


def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not here: install nodejs")
    return found


@pytest.fixture(params=LANGUAGES)
async def tapped(
    hall: Hall, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Tap, Program]]:
    tap = await Tap(hall.listen("everything", call=("everything.*",))).open()
    sdk = str(REPOSITORY / "plugin-images/python/sdk")
    address = f"tls://127.0.0.1:{tap.port}"
    program = await Program.start(
        command(request.param, tmp_path),
        None,
        tmp_path,
        PYTHONPATH=sdk,
        CRUCIBLE_BUS=address,
        CRUCIBLE_BUS_CA=str(hall.ca),
    )
    yield tap, program
    await program.close()
    tap.close()


async def test_each_sdk_speaks_tls_and_a_capture_shows_nothing(
    tapped: tuple[Tap, Program], hall: Hall
) -> None:
    tap, program = tapped
    bus = hall.bus
    await bus.ready("everything", program)
    host = await bus.join(bus.host, namespace="here")
    answer = await host.call(1, "everything.split", json.dumps({"text": f"{SECRET} and more"}).encode())
    assert json.loads(answer.payload) == [SECRET, "and", "more"]
    large = bytes(range(256)) * 4000
    echoed = await host.call(3, "everything.echo-bytes", large)
    assert echoed.payload == large
    asked = json.dumps({"to": "everything.split", "with": {"text": SECRET}}).encode()
    assert json.loads((await host.call(5, "everything.relay", asked)).payload) == [SECRET]
    for words in (SECRET, "everything", "split", "wire"):
        assert words.encode() not in tap.heard
    assert large[:64] not in tap.heard
    assert len(tap.heard) > 2 * len(large), "it went through here"
    seat = bus.broker.roster.find("here", "everything")
    assert seat is not None
    (old,) = seat.connections
    old.close()
    await until(lambda: any(one is not old and one.ready for one in seat.connections))
    assert program.process.returncode is None


async def test_the_same_capture_of_a_plain_connection_shows_everything(hall: Hall) -> None:
    """What the capture of TLS does not show it would show."""
    tap = await Tap(hall.listen("plain", plain=True, publish=("notes.*",))).open()
    raw = Raw(*await asyncio.open_connection("127.0.0.1", tap.port))
    await raw.greeted()
    await raw.ask(Frame(Kind.PUBLISH, 1, "notes.saved", SECRET.encode()))
    assert SECRET.encode() in tap.heard
    assert b"wire" in tap.heard
    tap.close()


async def test_behind_a_unix_socket_it_is_the_same(hall: Hall) -> None:
    address = f"tls://{hall.listen_unix('local')}"
    raw = Raw(*await reach_aio(address, str(hall.ca)))
    assert (await raw.greeted()).writer.get_extra_info("ssl_object").version() == "TLSv1.3"
    for reach in REACHES:
        assert await reach(address, str(hall.ca)) == "", reach


async def by_threads(address: str, authority: str) -> str:
    def reach() -> str:
        try:
            tls.connect(address, authority, DEADLINE).close()
        except (OSError, Unavailable) as error:
            return str(error) or repr(error)
        return ""

    return await asyncio.to_thread(reach)


async def by_wasm(address: str, authority: str) -> str:
    def reach() -> str:
        try:
            reach_wasm(address, authority).close()
        except (OSError, ValueError) as error:
            return str(error) or repr(error)
        return ""

    return await asyncio.to_thread(reach)


async def by_asyncio(address: str, authority: str) -> str:
    try:
        _, writer = await reach_aio(address, authority)
    except (OSError, Unavailable) as error:
        return str(error) or repr(error)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return ""


async def by_node(address: str, authority: str) -> str:
    place = str(REPOSITORY / "plugin-images/javascript/sdk/crucible-plugin/reach.js")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        node(), "-e", REACH_JS, place, address, authority, stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(DEADLINE):
        said, errors = await process.communicate()
    assert process.returncode == 0, errors
    return "" if said.startswith(b"reached") else said.decode()


REACHES: tuple[Callable[[str, str], Any], ...] = (by_threads, by_asyncio, by_wasm, by_node)


@pytest.mark.parametrize("reach", REACHES)
class TestEachClient:
    """Refuses whoever it cannot be sure of."""

    async def test_takes_who_is_vouched_for_by_name(self, hall: Hall, reach: Callable[..., Any]) -> None:
        port = hall.listen("one", "localhost", "127.0.0.1")
        assert await reach(f"tls://127.0.0.1:{port}", str(hall.ca)) == ""
        assert await reach(f"tls://localhost:{port}", str(hall.ca)) == ""

    async def test_refuses_another_name(self, hall: Hall, reach: Callable[..., Any]) -> None:
        port = hall.listen("one", "crucible-bus.other.svc")
        assert await reach(f"tls://127.0.0.1:{port}", str(hall.ca)) != ""
        assert await reach(f"tls://localhost:{port}", str(hall.ca)) != ""

    async def test_refuses_another_authority_and_the_lack_of_one(
        self, hall: Hall, reach: Callable[..., Any]
    ) -> None:
        port = hall.listen("one")
        other = hall.written(fresh_authority("crucible-bus-ca", utc_now()), "other.crt")
        assert await reach(f"tls://127.0.0.1:{port}", str(other)) != ""
        assert "CRUCIBLE_BUS_CA" in await reach(f"tls://127.0.0.1:{port}", "")
        assert await reach(f"tls://127.0.0.1:{port}", str(hall.folder / "nothing.crt")) != ""

    async def test_refuses_older_tls_and_no_tls(self, hall: Hall, reach: Callable[..., Any]) -> None:
        old = hall.context()
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
        server = await asyncio.start_server(_talk_plainly, "127.0.0.1", 0, ssl=old)
        plain = await asyncio.start_server(_talk_plainly, "127.0.0.1", 0)
        for one in (server, plain):
            port = one.sockets[0].getsockname()[1]
            assert await reach(f"tls://127.0.0.1:{port}", str(hall.ca)) != ""
            one.close()

    async def test_refuses_addresses_it_does_not_know(self, hall: Hall, reach: Callable[..., Any]) -> None:
        for address in ("http://127.0.0.1:1", "tls://127.0.0.1", "tls://:1", "tls://a/b:1", "TLS://a:1"):
            assert "CRUCIBLE_BUS is" in await reach(address, str(hall.ca))


def _talk_plainly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\0\0\0\x60\x02\x02\0\0" * 8)
    writer.close()


async def test_the_broker_refuses_plain_text_and_older_tls(hall: Hall) -> None:
    port = hall.listen("one")
    raw = Raw(*await asyncio.open_connection("127.0.0.1", port))
    raw.send(Frame(Kind.HELLO, payload=b'{"wire":[1]}'))
    with pytest.raises(Exception):  # noqa: B017 - an alert of TLS, which is no frame, or the end
        await raw.next()
    await until(lambda: hall.bus.faults("one").get("malformed") == 1)
    context = ssl.create_default_context(cafile=str(hall.ca))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port, ssl=context)
    await until(lambda: hall.bus.faults("one").get("malformed") == 2)


async def test_who_never_says_a_word_of_tls_is_not_waited_for(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "_HANDSHAKE", 0.2)
    silent = await asyncio.open_connection("127.0.0.1", hall.listen("one"))
    async with asyncio.timeout(DEADLINE):
        assert await silent[0].read() == b""
    await until(lambda: hall.bus.faults("one").get("malformed") == 1)
    silent[1].close()


async def test_those_who_only_begin_keep_nobody_else_out_for_long(hall: Hall) -> None:
    """Some may be at TLS's greetings at once; further ones are turned away until those end."""
    port = hall.listen("one")
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
    refused = await by_asyncio(f"tls://127.0.0.1:{port}", str(hall.ca))
    assert refused != ""
    for _, writer in idle:
        writer.close()

    async def let_in() -> None:
        while await by_asyncio(f"tls://127.0.0.1:{port}", str(hall.ca)):
            await asyncio.sleep(0.05)

    await asyncio.wait_for(let_in(), DEADLINE)


async def test_who_is_at_its_greetings_when_the_door_is_shut_does_not_come_in(hall: Hall) -> None:
    port = hall.listen("one")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    entrance = hall.bus.doors.pop(next(key for key in hall.bus.doors if key.startswith("tcp-one")))
    await until(lambda: entrance._beginning)
    entrance.close()
    context = tls.context_of(str(hall.ca))
    raw = None
    with suppress(OSError):
        await writer.start_tls(context, server_hostname="127.0.0.1", ssl_handshake_timeout=DEADLINE)
        raw = Raw(reader, writer)
        raw.send(Frame(Kind.HELLO, payload=b'{"wire":[1]}'))
    if raw is not None:
        with pytest.raises(Gone):
            await raw.next()
    seat = hall.bus.broker.roster.find("here", "one")
    assert seat is not None
    await until(lambda: not entrance._beginning)
    assert not seat.connections
