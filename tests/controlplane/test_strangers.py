"""Whoever has no token gets nowhere: other users of the machine, and those who only hold connections."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
import subprocess
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import aiohttp.web
import pytest
import yaml
from probe import PLUGINS, Probe, probing

from crucible.control.apiserver import ApiServer, ServerSettings
from crucible.control.client import Client
from crucible.control.kubeconfig import load_endpoint, merge_kubeconfig

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncGenerator, AsyncIterator

NOBODY = 65534
IMPATIENT = 1.5
"""Seconds: short to wait for, and long enough for the handshake of a client that the machine lets wait."""
STRANGER = """
import os, ssl, sys, urllib.error, urllib.request
os.setgroups([]); os.setgid({nobody}); os.setuid({nobody})
for path in {paths!r}:
    try:
        os.listdir(path) if path.endswith("/") else open(path).read(1)
        print("read", path)
    except PermissionError:
        pass
context = ssl._create_unverified_context()
for headers in ({{}}, {{"Authorization": "Bearer "}}, {{"Authorization": "Bearer guess"}}):
    for path in ("/version", "/readyz", "/api/v1/namespaces/default/secrets"):
        try:
            urllib.request.urlopen(urllib.request.Request({url!r} + path, headers=headers), context=context)
            print("answered", path)
        except urllib.error.HTTPError as error:
            error.code == 401 or print(error.code, path)
print("done")
"""


@asynccontextmanager
async def impatient(folder: Path, **limits: float) -> AsyncIterator[ApiServer]:
    async with ApiServer(ServerSettings(state_dir=folder / "state", **limits)) as server:  # type: ignore[arg-type]
        yield server


@asynccontextmanager
async def connected(server: ApiServer) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, port = server.url.removeprefix("https://").split(":")
    context = ssl.create_default_context(cafile=str(server.ca))
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the other side closes the connection before long."""
    try:
        async with asyncio.timeout(60):
            return await reader.read() == b""
    except ConnectionError:
        return True


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_reaches_neither_files_nor_the_api() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        async with ApiServer(ServerSettings(state_dir=Path(folder) / "state")) as server:
            state = server.kubeconfig.parent
            names = ("", "kubeconfig", "token", "control.db", "ca.key", "client.key", "server.key", "lock")
            code = STRANGER.format(nobody=NOBODY, paths=[f"{state}/{name}" for name in names], url=server.url)
            ran = await asyncio.to_thread(
                subprocess.run,
                ["/usr/bin/python3", "-I", "-c", code],
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
            )
    assert (ran.stdout, ran.stderr) == ("done\n", "")


async def test_a_connection_that_says_nothing_is_closed(tmp_path: Path) -> None:
    async with impatient(tmp_path, header_timeout=IMPATIENT) as server, connected(server) as (reader, _):
        assert await ended(reader)


async def test_headers_that_trickle_in_are_not_waited_for(tmp_path: Path) -> None:
    async with impatient(tmp_path, header_timeout=IMPATIENT) as server, connected(server) as (reader, writer):
        writer.write(b"GET /version HTTP/1.1\r\nHost: localhost\r\n")
        closing = asyncio.create_task(ended(reader))
        while not closing.done():
            writer.write(b"X-More: x\r\n")
            await asyncio.wait({closing}, timeout=0.05)
        assert closing.result()


async def test_a_handshake_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    async with impatient(tmp_path, header_timeout=IMPATIENT) as server:
        host, port = server.url.removeprefix("https://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await ended(reader)
        writer.close()


async def test_a_stranger_gets_one_question(probe: Probe) -> None:
    refused = await probe.get("/version", headers={"Authorization": "Bearer wrong"})
    assert (refused.code, refused.headers["Connection"]) == (401, "close")


async def test_a_client_that_asked_may_be_silent_for_long(tmp_path: Path) -> None:
    async with (
        impatient(tmp_path, header_timeout=IMPATIENT) as server,
        probing(server.url, server.ca, server.token) as probe,
        probe.watch("/api/v1/namespaces/default/configmaps?watch=1") as watch,
    ):
        assert watch.code == 200
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2 * IMPATIENT):
                await watch.line()


async def test_for_one_connection_more_the_longest_silent_one_goes(tmp_path: Path) -> None:
    async with (
        impatient(tmp_path, max_connections=2) as server,
        connected(server) as (oldest, _),
        connected(server),
        probing(server.url, server.ca, server.token) as probe,
    ):
        assert (await probe.get("/version")).code == 200
        assert await ended(oldest)


async def test_a_connection_too_many_is_closed_where_all_others_are_in_use(tmp_path: Path) -> None:
    async with (
        impatient(tmp_path, max_connections=1) as server,
        probing(server.url, server.ca, server.token) as probe,
        probe.watch("/api/v1/namespaces/default/configmaps?watch=1") as watch,
    ):
        host, port = server.url.removeprefix("https://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await ended(reader)
        writer.close()
        assert watch.code == 200


async def test_a_server_out_of_descriptors_lets_the_longest_silent_one_go_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    real, failures = loop.sock_accept, [OSError(errno.EMFILE, "Too many open files")]

    async def accept(listener: socket.socket) -> tuple[socket.socket, Any]:
        if failures:
            raise failures.pop()
        return await real(listener)

    async with (
        impatient(tmp_path) as server,
        connected(server) as (silent, _),
        probing(server.url, server.ca, server.token) as probe,
    ):
        monkeypatch.setattr(loop, "sock_accept", accept)
        assert (await probe.get("/version")).code == 200
        assert await ended(silent)
        assert failures == []
        async with connected(server):
            pass


async def test_half_open_handshakes_exhaust_nothing_and_keep_nobody_out(tmp_path: Path) -> None:
    async with impatient(tmp_path, max_connections=8) as server, AsyncExitStack() as flood:
        host, port = server.url.removeprefix("https://").split(":")
        before = descriptors()
        readers = []
        for _ in range(60):
            reader, writer = await asyncio.open_connection(host, int(port))
            flood.callback(writer.close)
            readers.append(reader)
        async with probing(server.url, server.ca, server.token) as probe:
            assert (await probe.get("/version")).code == 200
        for reader in readers[:52]:
            assert await ended(reader)
        ours = 60 + 8
        assert descriptors() <= before + ours + 4


async def test_the_kubeconfig_offers_the_certificate_too(server: ApiServer) -> None:
    name = yaml.safe_load(server.kubeconfig.read_text())["current-context"]
    endpoint = load_endpoint(server.kubeconfig, f"{name}-certificate")
    assert endpoint.token == ""
    async with Client(endpoint) as client:
        assert (await client.get("/version"))["major"] == "1"


async def test_two_control_planes_share_one_kubeconfig(tmp_path: Path) -> None:
    merged: dict[str, Any] = {}
    async with impatient(tmp_path / "a") as first, impatient(tmp_path / "b") as second:
        for server in (first, second):
            merged = merge_kubeconfig(merged, yaml.safe_load(server.kubeconfig.read_text()))
        (tmp_path / "config").write_text(yaml.safe_dump(merged))
        endpoints = [load_endpoint(tmp_path / "config", each["name"]) for each in merged["contexts"]]
        assert [endpoint.server for endpoint in endpoints] == [first.url, first.url, second.url, second.url]
        for endpoint in endpoints:
            async with Client(endpoint) as client:
                assert (await client.get("/version"))["major"] == "1"
    async with impatient(tmp_path / "a") as again:
        later = merge_kubeconfig(merged, yaml.safe_load(again.kubeconfig.read_text()))
        for section in ("clusters", "users", "contexts"):
            assert all(entry in merged[section] for entry in later[section]), "names stay over restarts"


async def test_a_client_that_leaves_amid_its_answer_is_no_defect(
    probe: Probe, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def left(*_: object) -> None:
        raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")

    monkeypatch.setattr(aiohttp.web.StreamResponse, "write", left)
    with pytest.raises((aiohttp.ClientError, EOFError)):
        async with probe.watch(f"{PLUGINS}?watch=1&resourceVersion=0") as watch:
            await watch.next()
    monkeypatch.undo()
    assert (await probe.get(PLUGINS)).code == 200
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}]
