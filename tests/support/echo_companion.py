"""A companion for tests: says back what it hears, with the grant of whoever says it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if len(sys.argv) > 1 and sys.argv[1] == "--other-release":
    sys.argv.pop(1)
    import crucible

    crucible.__version__ = "0.0.0"

from crucible.companions.program import peer_of, run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crucible.model.door import Doorway


class Echo:
    def __init__(self, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self.tell = tell
        self.grants: dict[str, Mapping[str, Any]] = {}
        self.servers: dict[str, list[asyncio.Task[None]]] = {}

    def admit(self, doorway: Doorway, grant: Mapping[str, Any], listeners: Sequence[socket.socket]) -> None:
        self.grants[doorway.key] = grant
        if listeners:
            tasks = [asyncio.ensure_future(self._accept(doorway, one)) for one in listeners]
            self.servers.setdefault(doorway.key, []).extend(tasks)

    def dismiss(self, key: str) -> None:
        self.grants.pop(key)
        for task in self.servers.pop(key):
            task.cancel()

    async def answer(self, words: Mapping[str, Any]) -> Mapping[str, Any]:
        if "look" in words:
            return look(words["look"])
        return {"pid": os.getpid(), "serves": sorted(self.grants)}

    async def _accept(self, doorway: Doorway, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                caller, _ = await loop.sock_accept(listener)
                self.servers[doorway.key].append(asyncio.ensure_future(self._serve(doorway, caller)))

    async def _serve(self, doorway: Doorway, caller: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with caller:
            while data := await loop.sock_recv(caller, 1000):
                words = {
                    "plugin": doorway.plugin,
                    "grant": self.grants[doorway.key],
                    "peer": peer_of(caller),
                    "said": data.decode(),
                }
                self.tell({"heard": data.decode()})
                await loop.sock_sendall(caller, json.dumps(words).encode())


def look(private: str) -> dict[str, Any]:
    """Try what a companion must not be able to do."""
    found: dict[str, Any] = {}
    for name, attempt in {
        "read": lambda: Path(private).read_text(),
        "list": lambda: list(Path(private).parent.iterdir()),
        "write": lambda: Path(private).with_name("written").write_text("x"),
        "tmp": lambda: Path("/tmp", f"companion-{os.getpid()}").write_text("x"),
        "execute": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606 - it must fail
        "port": lambda: socket.create_server(("127.0.0.1", 0)),
        "hosts": lambda: Path("/etc/hosts").read_text(),
    }.items():
        try:
            attempt()
        except OSError as error:
            found[name] = error.strerror
        else:
            found[name] = "worked"
    return found


run("echo", Echo)
