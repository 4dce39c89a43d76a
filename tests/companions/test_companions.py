"""Companions: found, started, fed, revived and ended; and harmless."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from onlooker import bearing

from crucible.companions import companion as companions
from crucible.companions import program
from crucible.companions.companion import Companion, Pace
from crucible.companions.confine import landlock_version
from crucible.companions.link import PACKET, page_of
from crucible.companions.starting import Program
from crucible.errors import Unavailable
from crucible.model.door import Door, Doorway
from crucible.runtimes.doors import bind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

SECONDS = 60.0
ECHO = str(Path(__file__).parent.parent / "support" / "echo_companion.py")
PACE = Pace(beat=0.2, answer=3.0, linger=0.1)


class Instances:
    """Stands for a runtime: instances that have one door each."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.held: dict[str, tuple[Doorway, socket.socket]] = {}

    def doorways(self, plugin_uid: str | None = None) -> tuple[Doorway, ...]:
        return tuple(one for uid, (one, _) in self.held.items() if plugin_uid in {None, uid})

    async def listeners(self, doorway: Doorway) -> tuple[socket.socket, ...]:
        return (self.held[doorway.plugin_uid][1].dup(),)

    def add(self, name: str) -> None:
        folder = self.place / name
        folder.mkdir()
        self.held[name] = (
            Doorway(Door.EGRESS, "default", name, name, "0-1", os.geteuid()),
            bind(folder, Door.EGRESS),
        )

    def drop(self, name: str) -> None:
        self.held.pop(name)[1].close()


class Scene:
    """One control plane's companion, and whoever plays the plugins."""

    def __init__(self, place: Path) -> None:
        self.instances = Instances(place)
        self.program = Program(
            "echo", (sys.executable, "-I", ECHO), place / "private", f"{os.getpid()}-{place.name}", alone=1.0
        )
        self.heard: list[Mapping[str, Any]] = []
        self.callers: list[socket.socket] = []
        self.open()

    def open(self, program: Program | None = None) -> None:
        self.companion = Companion(
            program or self.program, Door.EGRESS, self.instances, self.heard.append, PACE
        )
        self.task = asyncio.create_task(self.companion.keep())

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def add(self, name: str, grant: dict[str, Any] | None = None) -> None:
        self.instances.add(name)
        self.companion.grant(name, {} if grant is None else grant)
        self.companion.refresh(name)

    def drop(self, name: str) -> None:
        self.instances.drop(name)
        self.companion.refresh(name)

    async def connect(self, name: str) -> socket.socket:
        caller = socket.socket(socket.AF_UNIX)
        self.callers.append(caller)
        caller.setblocking(False)
        path = str(self.instances.place / name / "egress.sock")
        await asyncio.get_running_loop().sock_connect(caller, path)
        return caller

    async def say(self, caller: socket.socket, words: str = "hello") -> Any:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(caller, words.encode())
        return json.loads(await asyncio.wait_for(loop.sock_recv(caller, 1000), SECONDS) or b"null")

    async def pid(self) -> int:
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    return int((await self.companion.ask({}))["pid"])
                except Unavailable:
                    await asyncio.sleep(0.01)

    async def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    async def until_gone(self, pid: int) -> None:
        await self.until(lambda: not Path(f"/proc/{pid}").exists() or _zombie(pid))


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    found = Scene(tmp_path)
    yield found
    for name in tuple(found.instances.held):
        found.drop(name)
    await found.until(lambda: not running(found.program))
    await found.close()
    for caller in found.callers:
        caller.close()


def running(program: Program) -> list[int]:
    """Return the processes that bear a companion's mark."""
    return bearing(program.mark.encode())


async def test_it_runs_while_an_instance_has_its_door(scene: Scene) -> None:
    assert not running(scene.program)
    scene.add("one", {"may": "speak"})
    scene.add("two")
    caller, other = await scene.connect("one"), await scene.connect("two")
    heard = await scene.say(caller)
    assert heard == {"plugin": "one", "grant": {"may": "speak"}, "peer": os.geteuid(), "said": "hello"}
    assert (await scene.say(other))["grant"] == {}
    assert {"heard": "hello"} in scene.heard
    pid = await scene.pid()
    scene.drop("one")
    await scene.until(lambda: caller_ended(caller))
    assert (await scene.say(other))["plugin"] == "two"
    scene.drop("two")
    await scene.until_gone(pid)


def caller_ended(caller: socket.socket) -> bool:
    try:
        return caller.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False


async def test_a_new_grant_holds_for_who_is_connected(scene: Scene) -> None:
    scene.add("one", {"may": "speak"})
    caller = await scene.connect("one")
    await scene.say(caller)
    scene.companion.grant("one", {"may": "sing"})
    async with asyncio.timeout(SECONDS):
        while (await scene.say(caller))["grant"] != {"may": "sing"}:
            await asyncio.sleep(0.01)


async def test_one_that_dies_is_back_and_nobody_in_the_queue_is_lost(scene: Scene) -> None:
    scene.add("one", {"may": "speak"})
    await scene.say(await scene.connect("one"))
    pid = await scene.pid()
    os.kill(pid, signal.SIGSTOP)  # so that the next caller is still in the queue when it dies
    caller = await scene.connect("one")
    os.kill(pid, signal.SIGKILL)
    assert (await scene.say(caller))["grant"] == {"may": "speak"}
    assert await scene.pid() != pid


async def test_an_answer_that_comes_as_its_time_ends_does_no_harm(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.add("one")
    await scene.pid()
    before = set(scene.companion._questions)
    asking = asyncio.create_task(scene.companion.ask({}))
    await asyncio.sleep(0)  # it begins
    (number,) = set(scene.companion._questions) - before
    asking.cancel()  # as its deadline does: it is over, and not yet off the list
    scene.companion._hear({"answer": number, "words": {}}, ())
    with pytest.raises(asyncio.CancelledError):
        await asking
    scene.companion._hear({"answer": number, "words": {}}, ())
    assert "not understood" not in caplog.text


async def test_one_that_hangs_is_replaced(scene: Scene) -> None:
    scene.add("one")
    pid = await scene.pid()
    os.kill(pid, signal.SIGSTOP)
    await scene.until_gone(pid)
    assert (await scene.say(await scene.connect("one")))["plugin"] == "one"


async def test_a_restart_of_the_controller_cuts_nothing(scene: Scene) -> None:
    scene.add("one", {"may": "speak"})
    caller = await scene.connect("one")
    await scene.say(caller)
    pid = await scene.pid()
    await scene.close()
    assert (await scene.say(caller))["said"] == "hello"
    scene.open()
    assert await scene.pid() == pid
    # Nobody said yet what it may do: it keeps what it had.
    assert (await scene.say(caller))["grant"] == {"may": "speak"}
    scene.companion.grant("one", {})
    async with asyncio.timeout(SECONDS):
        while (await scene.say(caller))["grant"] != {}:
            await asyncio.sleep(0.01)
    assert (await scene.companion.ask({}))["serves"] == ["one/0-1/egress"]


async def test_what_is_gone_meanwhile_is_dismissed(scene: Scene) -> None:
    scene.add("one")
    scene.add("two")
    await scene.say(await scene.connect("two"))
    pid = await scene.pid()
    await scene.close()
    scene.instances.drop("one")
    scene.open()
    assert await scene.pid() == pid
    async with asyncio.timeout(SECONDS):
        while (await scene.companion.ask({}))["serves"] != ["two/0-1/egress"]:
            await asyncio.sleep(0.01)


async def test_one_of_another_release_is_replaced(scene: Scene) -> None:
    await scene.close()
    old = Program(
        "echo", (*scene.program.command, "--other-release"), scene.program.folder, scene.program.control_plane
    )
    scene.open(old)
    scene.add("one")
    # This controller takes it for one of another release too, and starts it again and again.
    await scene.until(lambda: bool(scene.companion.problem))
    assert "another release" in scene.companion.problem
    await scene.close()
    scene.open()
    assert (await scene.say(await scene.connect("one")))["plugin"] == "one"


async def test_what_nobody_foresaw_is_told_and_tried_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(scene.instances, "doorways", lambda _=None: 1 / 0)
        scene.companion._wake.set()
        await scene.until(lambda: "division by zero" in scene.companion.problem)
    assert "ZeroDivisionError" in caplog.text
    scene.add("one")
    assert await scene.say(await scene.connect("one"))


async def test_a_controller_that_cannot_be_let_in_now_is_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "REST", 0.01)
    loop = asyncio.get_running_loop()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    listener.setblocking(False)
    tries = iter(range(100))

    async def accept(one: socket.socket) -> tuple[socket.socket, Any]:
        if next(tries) < 3:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return await sock_accept(one)

    sock_accept = loop.sock_accept
    monkeypatch.setattr(loop, "sock_accept", accept)
    companion = program._Companion("echo")
    task = asyncio.create_task(companion.accept(listener))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.setblocking(False)
        await loop.sock_connect(caller, str(tmp_path / "s"))
        said = json.loads(await asyncio.wait_for(loop.sock_recv(caller, 10_000), SECONDS))
        assert said["hello"]["name"] == "echo"
        assert capsys.readouterr().err.count("Too many open files") == 3
        assert companion.link is not None
        companion.link.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    listener.close()


def test_a_list_is_told_in_pages_that_fit_a_packet() -> None:
    things = [{"plugin": f"{number}", "last": "x" * 250} for number in range(2000)]
    told: list[Mapping[str, Any]] = []
    more = True
    while more:
        page, more = page_of(things, len(told))
        assert page
        assert len(json.dumps({"answer": 1, "words": {"figures": page, "more": more}})) < PACKET
        told += page
    assert told == things
    assert page_of([{"last": "x" * 2 * PACKET}], 0)[1] is False
    assert page_of([], 0) == ([], False)


async def test_one_that_fails_again_and_again_is_told_of_until_it_serves(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(companions, "_RETRY_FIRST", 0.01)
    told: list[str] = []
    scene.companion.troubled = lambda: told.append(scene.companion.trouble)
    start, tries = companions.starting.start, iter(range(100))

    async def fail(program: Program) -> Any:
        if next(tries) < 5:
            raise Unavailable("no such luck")
        return await start(program)

    monkeypatch.setattr(companions.starting, "start", fail)
    scene.add("one")
    assert (await scene.say(await scene.connect("one")))["plugin"] == "one"
    scene.companion.refresh("one")  # the turn in which it was started ends
    await scene.until(lambda: len(told) == 2)
    assert told == ["no such luck", ""]


async def test_why_one_does_not_start_is_said(scene: Scene) -> None:
    await scene.close()
    scene.open(
        Program(
            "echo",
            (sys.executable, "-I", "-c", "raise SystemExit('no such luck')"),
            scene.program.folder,
            "t",
        )
    )
    scene.add("one")
    await scene.until(lambda: bool(scene.companion.problem))
    assert scene.companion.problem == "the companion echo does not start: no such luck"


async def test_one_that_nobody_will_come_for_ends(scene: Scene) -> None:
    scene.add("one")
    pid = await scene.pid()
    await scene.close()
    for path in scene.program.folder.iterdir():
        path.unlink(missing_ok=True)  # it may just be ending by itself
    scene.program.folder.rmdir()
    await scene.until_gone(pid)
    scene.open()


@pytest.fixture
def in_a_group() -> Iterator[None]:
    """Who starts companions is a member of a group that they must not be in."""
    if os.geteuid() != 0:
        yield
        return
    before = os.getgroups()
    os.setgroups([1_890_123_456])
    yield
    os.setgroups(before)


@pytest.mark.usefixtures("in_a_group")
async def test_it_can_do_no_more_than_serve(scene: Scene, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the controller")
    scene.add("one")
    pid = await scene.pid()
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    uid = scene.program.uid if os.geteuid() == 0 else os.geteuid()
    assert uid
    assert set(status["Uid"].split()) == {str(uid)}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert int(status["CapEff"], 16) == 0
    if os.geteuid() == 0:
        assert (int(status["CapBnd"], 16), status["Groups"]) == (0, "")
    assert Path(f"/proc/{pid}/status").stat().st_uid == 0, "its user can look into it"
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    limits = {line[:26].strip(): line[26:].split()[:2] for line in lines}
    assert all(int(limit) <= 65536 for limit in limits["Max open files"])
    assert limits["Max core file size"] in (["1"] * 2, ["0"] * 2)
    assert limits["Max file size"] == ["1048576"] * 2
    assert limits["Max data size"] == [str(program.MEMORY)] * 2
    found = await scene.companion.ask({"look": str(secret)})
    assert found["hosts"] == "worked"
    if landlock_version() == 0:
        assert os.geteuid() != 0 or found["read"] != "worked"
        pytest.skip("this kernel has no Landlock: only another user id keeps a companion from files")
    failed = {
        name: found[name].partition(" (")[0] for name in ("read", "list", "write", "tmp", "execute", "port")
    }
    assert set(failed.values()) == {"Permission denied"}, failed


async def test_one_that_serves_and_ends_again_and_again_is_told_until_it_stays(scene: Scene) -> None:
    told: list[str] = []
    scene.companion.troubled = lambda: told.append(scene.companion.trouble)
    scene.add("one")
    for turn in range(3):
        pid = await scene.pid()
        assert told == [], f"told after {turn} ends"
        os.kill(pid, signal.SIGKILL)
        await scene.until_gone(pid)
    await scene.until(lambda: bool(told))
    assert "again and again" in scene.companion.trouble
    pid = await scene.pid()
    assert (await scene.say(await scene.connect("one")))["plugin"] == "one", "it is started all the same"
    os.kill(pid, signal.SIGKILL)
    await scene.until_gone(pid)
    await scene.pid()
    assert len(told) == 1, "it is told once, however often it ends"
    scene.companion._ends[:] = [at - scene.companion._pace.calm for at in scene.companion._ends]
    await scene.until(lambda: told[-1] == "")
    assert len(told) == 2


async def test_one_that_is_ended_because_nothing_needs_it_is_no_trouble(scene: Scene) -> None:
    for name in ("a", "b", "c", "d"):
        scene.add(name)
        pid = await scene.pid()
        scene.drop(name)
        await scene.until_gone(pid)
    assert scene.companion._ends == []
    assert scene.companion.trouble == ""
