"""One machine of a backbone, as a program in a network of its own: keeper, broker, and doors of plugins.

Usage: ``machine.py FOLDER SETTINGS``, with ``plugins.json`` in the folder: grants by name. It goes on until
its input ends, and then ends all that it started.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from crucible.backbone import server
from crucible.backbone.keeper import Keeper
from crucible.backbone.server import ServerPlace
from crucible.bus.liaison import Liaison
from crucible.bus.linedoor import LineDoor
from crucible.companions.companion import Companion, Pace
from crucible.companions.starting import Program
from crucible.model.backbone import LINES
from crucible.model.bus import Grants, Member
from crucible.model.door import Door, Doorway
from crucible.runtimes.doors import bind

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from crucible.model.backbone import Joining


class Machine:
    """A controller's part, and instances that are nothing but their doors."""

    def __init__(self, folder: Path, settings: Path) -> None:
        mark = f"{folder.parent.name}-{folder.name}-{os.getpid()}"
        self.held: dict[str, tuple[Doorway, socket.socket]] = {}
        self.liaison = Liaison(self)
        program = Program(
            "bus", (sys.executable, "-I", "-m", "crucible.bus"), folder / "bus", mark, alone=2.0, keeps=True
        )
        self.companion = Companion(program, Door.BUS, self, self.liaison.hear, Pace(beat=1.0, linger=0.1))
        self.place = ServerPlace(folder / "backbone", mark)
        self.lines = LineDoor()
        self.keeper = Keeper(settings, self.place, self.join)
        self.folder = folder

    def doorways(self, plugin_uid: str | None = None) -> tuple[Doorway, ...]:
        held = (*(way for way, _ in self.held.values()), *(self.lines.doorways() if self.held else ()))
        return tuple(way for way in held if plugin_uid in {None, way.plugin_uid})

    def join(self, joining: Joining | None) -> None:
        self.liaison.join(joining)
        if self.lines.move(joining):
            self.companion.refresh(LINES)

    async def listeners(self, doorway: Doorway) -> tuple[socket.socket, ...]:
        if doorway.plugin == LINES:
            return self.lines.listeners()
        return (self.held[doorway.key][1].dup(),)

    async def ask(self, words: Mapping[str, object]) -> Mapping[str, object]:
        return await self.companion.ask(words)

    def add(self, name: str, grants: Grants) -> None:
        uid = f"uid-{name}"
        place = self.folder / name
        place.mkdir(exist_ok=True)
        doorway = Doorway(Door.BUS, "here", name, uid, "0-1", os.geteuid())
        self.held[doorway.key] = (doorway, bind(place, Door.BUS))
        self.liaison.know(Member("here", name, uid, grants))
        self.companion.grant(uid, {"grants": asdict(grants)})
        self.companion.refresh(uid)

    async def run(self) -> None:
        for name, grants in json.loads((self.folder / "plugins.json").read_text()).items():
            self.add(name, Grants(**{key: tuple(value) for key, value in grants.items()}))
        work = [
            asyncio.create_task(one)
            for one in (self.keeper.keep(), self.companion.keep(), self.liaison.keep())
        ]
        print("ready", flush=True)  # noqa: T201 - who started it waits for this
        await asyncio.to_thread(sys.stdin.read)
        work[0].cancel()
        uids = {way.plugin_uid for way, _ in self.held.values()}
        for _, one in self.held.values():
            one.close()
        self.held.clear()
        for uid in uids:
            self.companion.refresh(uid)
        while self.companion.running:
            await asyncio.sleep(0.02)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        held = server.reach(self.place)
        if held is not None:
            await server.end(held)


if __name__ == "__main__":
    os.umask(0o077)  # as crucible up does
    asyncio.run(Machine(Path(sys.argv[1]), Path(sys.argv[2])).run())
