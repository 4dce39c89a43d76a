"""The broker as the program it is: confined, told by a controller, killed and back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from raw import DEADLINE, Gone, Raw, words

from crucible.bus.liaison import Liaison
from crucible.bus.linedoor import LineDoor
from crucible.bus.wire import Frame, Kind
from crucible.companions.companion import Companion, Pace
from crucible.companions.starting import Program
from crucible.errors import Unavailable
from crucible.model.backbone import LINES, Joining, Meeting
from crucible.model.bus import HOST, Grants, Member
from crucible.model.door import Door, Doorway
from crucible.runtimes.doors import bind

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Mapping


class Scene:
    """A controller's part, and instances that are nothing but their doors."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.held: dict[str, tuple[Doorway, socket.socket]] = {}
        self.lines = LineDoor()
        self.bound: list[int] = []
        command = (sys.executable, "-I", "-m", "crucible.bus")
        mark = f"{os.getpid()}-{place.name}"
        self.program = Program("bus", command, place / "private", mark, alone=1.0, keeps=True)
        self.noticed: list[str] = []
        self.liaison = Liaison(self, self.noticed.append)
        self.companion = Companion(
            self.program, Door.BUS, self, self.liaison.hear, Pace(beat=0.2, answer=10.0, linger=0.1)
        )
        self.tasks = [asyncio.create_task(self.companion.keep()), asyncio.create_task(self.liaison.keep())]

    def doorways(self, plugin_uid: str | None = None) -> tuple[Doorway, ...]:
        ways = (*(way for way, _ in self.held.values()), *(self.lines.doorways() if self.held else ()))
        return tuple(way for way in ways if plugin_uid in {None, way.plugin_uid})

    async def listeners(self, doorway: Doorway) -> tuple[socket.socket, ...]:
        if doorway.plugin == LINES:
            (one,) = self.lines.listeners()
            self.bound.append(one.getsockname()[1])
            return (one,)
        return (self.held[doorway.key][1].dup(),)

    async def ask(self, said: Mapping[str, object]) -> Mapping[str, object]:
        return await self.companion.ask(said)

    def add(self, name: str, place: str = "0-1", **grants: object) -> Path:
        """Let an instance of a plugin exist."""
        uid = HOST if name == HOST else f"uid-{name}"
        member = Member("here", name, uid, Grants(**grants))  # type: ignore[arg-type]
        folder = self.place / f"{name}-{place}"
        folder.mkdir()
        doorway = Doorway(Door.BUS, "here", name, uid, place, os.geteuid())
        self.held[doorway.key] = (doorway, bind(folder, Door.BUS))
        if name != HOST:
            self.liaison.know(member)
            self.companion.grant(uid, {"grants": asdict(member.grants)})
        self.companion.refresh(uid)
        return folder / "bus.sock"

    async def settle(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await asyncio.sleep(0.01)

    async def told(self) -> None:
        """Wait until the broker knows every Plugin."""
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    if (await self.companion.ask({})).get("digest") == self.liaison._members.digest:
                        return
                except Unavailable:
                    await asyncio.sleep(0.01)

    async def restart(self) -> None:
        """End the controller's part, which knows nothing when it comes back."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.liaison = Liaison(self, self.noticed.append)
        self.companion = Companion(
            self.program, Door.BUS, self, self.liaison.hear, Pace(beat=0.2, linger=0.1)
        )
        self.tasks = [asyncio.create_task(self.companion.keep()), asyncio.create_task(self.liaison.keep())]

    def pid(self) -> int:
        found = self.companion._pidfd
        assert found is not None
        with open(f"/proc/self/fdinfo/{found}") as info:  # noqa: PTH123 - a proc file
            return next(int(line.split()[1]) for line in info if line.startswith("Pid:"))

    async def close(self) -> None:
        self.held.clear()
        self.companion.refresh("uid-all")
        await self.settle(lambda: self.companion._link is None)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    for _, one in scene.held.values():
        one.close()
    await scene.close()


async def test_the_broker_says_how_many_calls_those_have_who_are_given_no_new_ones(scene: Scene) -> None:
    asked = await Raw.greet(scene.add("pool"), methods=["work"])
    asker = await Raw.greet(scene.add("asker", call=("pool.work",)))
    await scene.told()
    asker.send(Frame(Kind.CALL, 1, "pool.work"))
    await asked.next()
    door = "uid-pool/0-1/bus"
    assert await scene.liaison.open_calls([door]) == {door: None}
    scene.liaison.know(Member("here", "pool", "uid-pool", Grants(), draining=("0-1",)))
    await scene.told()
    assert await scene.liaison.open_calls([door]) == {door: 1}
    scene.companion.grant("uid-pool", {"grants": asdict(Grants(call=("asker.x",)))})
    scene.companion.refresh("uid-pool")
    await scene.told()
    assert await scene.liaison.open_calls([door]) == {door: 1}, "a new grant does not forget it"


async def echo(client: Raw) -> None:
    """Answer every call with its payload, until the broker is gone."""
    try:
        while True:
            frame = await client.next()
            if frame.kind == Kind.CALL:
                client.send(Frame(Kind.ANSWER, frame.id, payload=frame.payload, priority=frame.priority))
    except Gone:
        return


async def again(path: Path, **hello: object) -> Raw:
    """Connect as a plugin does: again and again until it is let in."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                return await Raw.greet(path, **hello)
            except (Gone, AssertionError, ConnectionError):
                await asyncio.sleep(0.02)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may ask to wait less for others")
async def test_it_waits_less_for_others_than_ordinary_work(scene: Scene) -> None:
    client = await again(scene.add("notes"))
    assert os.getpriority(os.PRIO_PROCESS, scene.pid()) == -5
    group = Path(f"/proc/{scene.pid()}/autogroup")
    if group.exists():
        assert group.read_text().split()[-1] == "-5"
    await client.close()


async def test_killed_under_load_it_is_back_and_so_are_its_callers_and_stores(scene: Scene) -> None:
    notes = scene.add("notes", call=("tokenizer.split",), store=10_000)
    tokenizer = scene.add("tokenizer")
    server, client = await again(tokenizer, methods=["split"]), await again(notes)
    serving = asyncio.create_task(echo(server))
    assert (await client.call(1, "tokenizer.split", b"to be")).payload == b"to be"
    assert words(await client.call(3, "$store.put", b"kept", headers={"key": "a"})) == ("ANSWER", 3, "")
    before = scene.pid()
    client.send(*(Frame(Kind.CALL, ident, "tokenizer.split", b"x" * 2000) for ident in range(5, 1005, 2)))
    os.kill(before, signal.SIGKILL)
    for frame in await client.gone():
        assert (frame.kind, frame.payload) == (Kind.ANSWER, b"x" * 2000)
    await serving
    server, client = await again(tokenizer, methods=["split"]), await again(notes)
    serving = asyncio.create_task(echo(server))
    assert (await client.call(1, "tokenizer.split", b"again")).payload == b"again"
    assert (await client.call(3, "$store.get", headers={"key": "a"})).payload == b"kept"
    assert scene.pid() != before
    await server.close()
    await client.close()
    await serving


async def test_the_controller_says_why_a_plugin_does_not_answer_and_publishes_and_asks(scene: Scene) -> None:
    asker = await again(scene.add("asker", call=("asleep.m",), subscribe=("crucible.events.>",)))
    scene.liaison.know(Member("here", "asleep", "uid-asleep", Grants(), "is suspended"))
    await scene.told()
    answer = await asker.call(1, "asleep.m")
    assert (words(answer), answer.payload) == (("ERROR", 1, "Unavailable"), b"asleep: is suspended")
    scene.liaison.forget("uid-asleep")
    await scene.told()
    assert words(await asker.call(3, "asleep.m")) == ("ERROR", 3, "NoSuchPlugin")
    assert words(await asker.ask(Frame(Kind.SUBSCRIBE, 5, "crucible.events.>"))) == ("ANSWER", 5, "")
    await scene.liaison.publish("here", "crucible.events.asker.Started", {"specversion": "1.0"})
    event = await asker.next()
    assert (event.name, event.headers["from"]) == ("crucible.events.asker.Started", "$controller")
    assert json.loads(event.payload) == {"specversion": "1.0"}
    pinged = asyncio.create_task(scene.liaison.call("uid-asker/0-1/bus", "$ping", "?", 30))
    asked = await asker.next()
    assert (asked.name, asked.payload, asked.headers) == ("$ping", b"?", {"from": "$controller"})
    asker.send(Frame(Kind.ANSWER, asked.id, payload=b"!"))
    assert await pinged == ("", "!")
    assert (await scene.liaison.call("uid-asker/0-1/bus", "$ping", "", 0.05))[0] == "DeadlineExceeded"
    assert (await scene.liaison.call("uid-nobody/0-1/bus", "$ping", "", 1))[0] == "Unavailable"
    await asker.close()


async def test_what_a_plugin_does_wrong_is_reported_and_figures_tell_the_rest(scene: Scene) -> None:
    rude = await again(scene.add("rude"))
    await scene.told()
    refused: list[tuple[str, str]] = []
    scene.liaison.refused = lambda uid, what: refused.append((uid, what))
    assert words(await rude.call(1, "nobody.m")) == ("ERROR", 1, "NotPermitted")
    await scene.settle(lambda: refused == [("uid-rude", "call nobody.m")])
    await scene.settle(lambda: scene.noticed == ["uid-rude"])
    assert "refused what the manifest does not grant (1 times" in scene.liaison.notices("uid-rude")[0]
    figures = [entry for entry in await scene.liaison.figures() if entry["plugin"] == "rude"]
    assert (figures[0]["calls"], figures[0]["faults"]) == (1, {"refused": 1})
    scene.liaison.forget("uid-rude")
    assert scene.liaison.notices("uid-rude") == ()
    await rude.close()


async def test_a_new_controller_finds_it_serving_and_nothing_is_cut(scene: Scene) -> None:
    notes = scene.add("notes", call=("notes.m",))
    client = await again(notes, methods=["m"])
    other = await again(scene.add("other"), methods=["m"])
    await scene.told()
    await scene.restart()
    assert words(await client.call(1, "$bus.ping")) == ("ANSWER", 1, "")
    scene.liaison.know(Member("here", "notes", "uid-notes", Grants()))
    scene.companion.grant("uid-notes", {"grants": asdict(Grants())})
    async with asyncio.timeout(DEADLINE):
        while (await client.call(3, "notes.m", deadline=1)).name != "NotPermitted":
            await asyncio.sleep(0.01)
    assert words(await other.call(1, "$bus.ping")) == ("ANSWER", 1, ""), "it is still to be heard of"
    scene.liaison.expect(["uid-notes", "uid-other"])
    scene.liaison.know(Member("here", "other", "uid-other", Grants()))
    await scene.told()
    assert words(await other.call(3, "$bus.ping")) == ("ANSWER", 3, "")
    assert scene.liaison.uids() == {"uid-notes", "uid-other"}
    await client.close()
    await other.close()


async def let_in(port: int) -> bool:
    """Say whether somebody takes connections there, be it only to end them; False: they are refused."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    async with asyncio.timeout(DEADLINE):
        assert await asyncio.gather(
            reader.read(), return_exceptions=True
        )  # a broker that is joined to nothing
    writer.close()
    return True


async def test_other_machines_find_its_door_after_it_was_killed_and_no_more_once_it_is_shut(
    scene: Scene,
) -> None:
    """The port is bound by the controller: a confined broker can bind none."""
    scene.lines.move(
        Joining("alpha", "", 1, "", "", "", (), Meeting("alpha", "127.0.0.1", 0), listen="127.0.0.1")
    )
    await Raw.greet(scene.add("notes"))
    scene.companion.refresh(LINES)
    await scene.settle(lambda: len(scene.bound) == 1)
    assert await let_in(scene.bound[0])
    await scene.restart()
    await scene.settle(lambda: scene.companion.running)
    await scene.told()
    assert await let_in(scene.bound[0])
    assert len(scene.bound) == 1  # the broker has it still
    os.kill(scene.pid(), signal.SIGKILL)
    await scene.settle(lambda: len(scene.bound) == 2)
    assert await let_in(scene.bound[1])
    scene.lines.move(None)
    scene.companion.refresh(LINES)
    await scene.told()
    async with asyncio.timeout(DEADLINE):
        while await let_in(scene.bound[1]):
            await asyncio.sleep(0.02)


async def test_who_went_while_no_controller_ran_is_cut_off_once_it_is_known_who_is_left(
    scene: Scene,
) -> None:
    notes = await again(scene.add("notes"), methods=["m"])
    left = await again(scene.add("left"), methods=["m"])
    await scene.told()
    await scene.restart()
    scene.liaison.know(Member("here", "notes", "uid-notes", Grants()))
    scene.liaison.expect(["uid-notes"])
    await scene.told()
    async with asyncio.timeout(DEADLINE):
        assert (await left.gone())[-1].name == "NotPermitted"
    assert words(await notes.call(1, "$bus.ping")) == ("ANSWER", 1, "")
    await notes.close()
    await left.close()


async def test_the_host_application_acts_in_a_namespace_of_its_choice(scene: Scene) -> None:
    host = await again(scene.add(HOST, "host"), namespace="here")
    notes = await again(scene.add("notes", store=100), methods=["m"])
    host.send(Frame(Kind.CALL, 1, "notes.m", b"hello"))
    assert (await notes.next()).payload == b"hello"
    await host.close()
    await notes.close()


async def test_stores_nobody_wants_kept_go_with_their_plugin(scene: Scene) -> None:
    path = scene.add("brief", store=1000, keep_store=False)
    client = await again(path)
    await client.call(1, "$store.put", b"x", headers={"key": "a"})
    await scene.liaison.keep_stores(["uid-brief"])
    assert words(await client.call(3, "$store.get", headers={"key": "a"})) == ("ANSWER", 3, "")
    await scene.liaison.keep_stores(["uid-other"])
    assert words(await client.call(5, "$store.get", headers={"key": "a"})) == ("ERROR", 5, "NotFound")
    await client.close()


async def test_however_much_plugins_are_granted_the_broker_is_told_of_all(scene: Scene) -> None:
    most = {
        name: tuple(f"{number:03d}.".ljust(255, "x") for number in range(64))
        for name in ("publish", "subscribe", "call")
    }
    scene.add("first")
    await scene.told()
    for number in range(4):
        scene.liaison.know(Member("there", f"wide{number}", f"uid-wide{number}", Grants(**most)))
    await scene.told()
