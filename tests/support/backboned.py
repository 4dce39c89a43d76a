"""Machines that are joined: a real server, brokers in the test's own loop, and whoever speaks for them."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from raw import DEADLINE, Raw

from crucible.backbone import server
from crucible.backbone.authority import Authority, authority_in, utc_now
from crucible.backbone.server import ServerPlace
from crucible.bus import nats
from crucible.bus.broker import Broker
from crucible.bus.credentials import context_of
from crucible.bus.doors import Entrance
from crucible.bus.linedoor import LineDoor
from crucible.core import natsconfig
from crucible.core.natsconfig import User
from crucible.model.backbone import Joining, Meeting, Share
from crucible.model.bus import Grants, Member
from crucible.model.door import Door, Doorway

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crucible.bus.natswire import Message

ALL = Share("here", ("*",), ("tokenizer.*",), ("notes.>",))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.005)


def free_port() -> int:
    """Return a port that nobody has, below those that the kernel gives to whoever connects somewhere."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port


class Backbone:
    """A server with its authority; users are added as machines are."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.place = ServerPlace(folder, f"{os.getpid()}-{folder.parent.name}")
        self.authority: Authority = authority_in(folder, utc_now())
        self.port = free_port()
        self.users: dict[str, User] = {}
        self.held: int | None = None
        self.certificate = self.authority.server(["127.0.0.1"], utc_now())

    def invite(self, name: str, *namespaces: str, manages: bool = False) -> None:
        self.users[name] = User(name, f"{name}.test", namespaces, manages)

    def write(self) -> bool:
        files = {
            server.SETTINGS: natsconfig.settings("127.0.0.1", self.port, self.users.values()),
            natsconfig.AUTHORITY: self.authority.certificate,
            natsconfig.CERTIFICATE: self.certificate.certificate,
            natsconfig.KEY: self.certificate.key,
        }
        return server.write(self.place, files)

    async def start(self) -> None:
        self.write()
        self.held = await server.start(self.place, self.port)

    async def make_streams(self, *namespaces: str) -> None:
        manager = await self.client("manager")
        for name in namespaces:
            body = json.dumps(natsconfig.stream_settings(name)).encode()
            answer = await manager.request(f"$JS.API.STREAM.CREATE.CRUCIBLE-{name}", body, DEADLINE)
            assert b'"error"' not in answer.payload, answer
        manager.close()

    def reload(self) -> None:
        """Tell the server of what is new."""
        assert self.held is not None
        self.write()
        server.reload(self.held)

    def log(self) -> str:
        return (self.place.folder / "log").read_text()

    def kill(self) -> None:
        assert self.held is not None
        signal.pidfd_send_signal(self.held, signal.SIGKILL)
        os.close(self.held)
        self.held = None

    def joining(self, name: str, *shares: Share, line: int | None = None) -> Joining:
        """Return how a machine joins; ``line``: the port by which others come to it directly, 0: none do."""
        issued = self.authority.machine(f"{name}.test", utc_now())
        return Joining(
            name,
            "127.0.0.1",
            self.port,
            self.authority.certificate,
            issued.certificate,
            issued.key,
            shares or (ALL,),
            None if line is None else Meeting(f"{name}.test", "127.0.0.1", line),
            "127.0.0.1" if line else "",
        )

    async def client(self, name: str, heard: Callable[[Message], None] = lambda _: None) -> nats.Nats:
        """Connect as a machine does that keeps to no rules of ours."""
        joining = self.joining(name)
        return await nats.connect("127.0.0.1", self.port, context_of(joining), name, heard)

    async def close(self) -> None:
        if self.held is not None:
            await server.end(self.held)


class Joined:
    """A machine: its broker, joined to the backbone, and sockets of its plugins."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.broker = Broker(asyncio.get_running_loop())
        self.far = self.broker.far
        self.members: dict[str, Member] = {}
        self.doors: list[Entrance] = []
        self.keeping = asyncio.create_task(self.far.keep())

    def plugin(self, name: str, namespace: str = "here", *, state: str = "", **grants: object) -> Path:
        member = Member(namespace, name, f"uid-{namespace}-{name}", Grants(**grants), state)  # type: ignore[arg-type]
        self.members[name] = member
        self.broker.know(member)
        path = self.folder / f"{namespace}-{name}.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(16)
        doorway = Doorway(Door.BUS, namespace, name, member.uid, "0-1")
        self.doors.append(Entrance(self.broker, doorway, listener))
        return path

    def grant(self, name: str, **grants: object) -> None:
        self.members[name] = replace(self.members[name], grants=Grants(**grants))  # type: ignore[arg-type]
        self.broker.know(self.members[name])

    async def add(self, name: str, *methods: str, **grants: object) -> Raw:
        """Let a plugin exist and connect."""
        path = self.plugin(name, **grants)  # type: ignore[arg-type]
        return await Raw.greet(path, methods=list(methods))

    def lets_in(self) -> int:
        """Let other machines come directly, as the controller's door does; return by which port."""
        door = LineDoor()
        door._at = ("127.0.0.1", 0)
        (listener,) = door.listeners()
        self.far.lines.listen([listener])
        return int(listener.getsockname()[1])

    def directly(self, machine: str) -> bool:
        """Say whether calls to another machine go by a direct line now."""
        peer = self.far._peers.get(machine)
        return peer is not None and peer.line is not None

    def sees(self, machine: str, plugin: str, namespace: str = "here") -> bool:
        """Say whether it knows that a plugin serves on another machine."""
        peer = self.far._peers.get(machine)
        return peer is not None and peer.plugins.get((namespace, plugin)) == ""

    async def close(self) -> None:
        self.keeping.cancel()
        await asyncio.gather(self.keeping, return_exceptions=True)
        self.far.lines.listen(())
        for door in self.doors:
            door.close()
        await until(lambda: not any(seat.connections for seat in self.broker.roster))
        self.broker.calls.deadlines.close()
