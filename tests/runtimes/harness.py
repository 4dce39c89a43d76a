"""What the conformance suite needs of a runtime under test, and the two that offer it here."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from onlooker import cmdline, everything, processes

from crucible.backbone.local import Seal
from crucible.errors import NotFound
from crucible.model.usage import Usage
from crucible.model.workload import Limits, Slot, Workload
from crucible.runtimes.base import STDERR, STDOUT
from crucible.runtimes.fake import Behaviour, FakeHost, FakeRuntime
from crucible.runtimes.process import LogLimits, ProcessRuntime, ProcessSettings, sandbox
from crucible.runtimes.process.launch import CannotStart
from crucible.settings import default_cache

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.model.instance import Instance
    from crucible.model.volume import HostVolume
    from crucible.runtimes.base import Runtime
    from crucible.runtimes.passage import Passage
    from crucible.runtimes.process.launch import Host
    from crucible.runtimes.process.spawn import Spawner

MIB = 1 << 20
FIRST = Slot(0, 1)
LIMITS = Limits(cpu=2000, memory=64 * MIB, pids=16, disk=8 * MIB, open_files=64)
SECONDS = 60.0

# Does what its arguments say, one after the other.
PROGRAM = """\
import os, signal, sys
for word in sys.argv[1:]:
    verb, _, value = word.partition(":")
    if verb == "say": print(value)
    elif verb == "leave":
        print("old" if os.path.exists(value) else "new")
        open(value, "w").close()
    elif verb == "reread":
        def read(*_):
            with open(os.environ["CRUCIBLE_CONFIG"]) as file: print(file.read(), flush=True)
        signal.signal(signal.SIGHUP, read)
        place = os.path.dirname(os.environ["CRUCIBLE_CONFIG"])
        print("read-only" if os.statvfs(place).f_flag & os.ST_RDONLY else "WRITABLE", *os.listdir(place))
        read()
    elif verb == "count":
        import itertools, time
        for number in itertools.count():
            print(number, flush=True)
            time.sleep(0.005)
    elif verb == "notice":
        import time
        def read():
            with open(os.environ["CRUCIBLE_CONFIG"]) as file: return file.read()
        before = read()
        print("looking", flush=True)
        while read() == before: time.sleep(0.005)
        print(read())
    elif verb == "exit": sys.exit(int(value))
    elif verb == "die": os.kill(os.getpid(), int(value))
    elif verb == "deaf": signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif verb == "eat":
        kept = []
        while True: kept.append(b"x" * (1 << 20))
    elif verb == "listen":
        import socket, threading
        server = socket.create_server(("", int(value)))
        def serve():
            while True:
                with server.accept()[0] as caller:
                    caller.recv(4096)
                    caller.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\nhere")
        threading.Thread(target=serve, daemon=True).start()
    elif verb == "stay":
        print("staying")
        while True: signal.pause()
"""


# What a command in an instance can be asked to do.
COMMANDS = {
    "echo": "import sys; print(*sys.argv[1:])",
    "cat": "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)",
    "exit": "import sys; sys.exit(int(sys.argv[1]))",
    "sleep": "import signal; signal.pause()",
    "size": """\
import os, time
while not (size := os.get_terminal_size()).lines:
    time.sleep(0.001)
print(size.lines, size.columns)
""",
}
PYTHON = "python3"


class Harness(Protocol):
    """A runtime, and the ways to give it work and to look at what it left."""

    runtime: Runtime
    heard: list[str]

    def workload(self, *words: str, name: str = "p") -> Workload:
        """Return a workload whose program does what the words say."""
        ...

    def source(self, name: str, files: dict[str, str]) -> str:
        """Keep a source snapshot, and return its digest."""
        ...

    def command(self, verb: str, *words: str) -> tuple[str, ...]:
        """Return a command that does what one of ``COMMANDS`` says."""
        ...

    async def reopen(self) -> None:
        """Close the runtime, and open another on the same host."""
        ...

    async def stranger(self) -> Runtime:
        """Open the runtime of another control plane on the same host."""
        ...

    def leftovers(self) -> list[str]:
        """Name what is left on the host of instances that were removed."""
        ...


class Common:
    """What both harnesses share."""

    def __init__(self) -> None:
        self.runtime: Runtime
        self.heard: list[str] = []
        self.opened: list[Runtime] = []
        self.secrets: dict[str, dict[str, bytes]] = {}
        self.volumes: tuple[HostVolume, ...] = ()

    def secrets_of(self, namespace: str, name: str) -> dict[str, bytes]:
        """Return what is in a Secret of the namespace that these workloads are of."""
        if namespace != "default" or name not in self.secrets:
            raise NotFound(f"there is no Secret {name} in {namespace}")
        return self.secrets[name]

    def instance(self, workload: Workload, slot: Slot = FIRST) -> Instance:
        (found,) = (one for one in self.runtime.instances(workload.plugin_uid) if one.slot == slot)
        return found

    async def until(
        self, workload: Workload, holds: Callable[[Instance], bool], slot: Slot = FIRST
    ) -> Instance:
        await wait_for(
            lambda: holds(self.instance(workload, slot)), lambda: str(self.instance(workload, slot))
        )
        return self.instance(workload, slot)

    async def run(self, workload: Workload) -> Instance:
        """Start and wait for the end."""
        await self.runtime.start(workload, FIRST)
        return await self.until(workload, lambda one: not one.alive)

    async def lines(self, workload: Workload, tail: int | None = None) -> list[bytes]:
        found = self.runtime.logs(workload.plugin_uid, FIRST, tail=tail, follow=False)
        return [line.text async for line in found]

    async def counts(self, workload: Workload) -> None:
        """Wait until one that counts has gone on."""
        before = len(await self.lines(workload))
        deadline = time.monotonic() + SECONDS
        while len(await self.lines(workload)) <= before + 2:
            assert time.monotonic() < deadline, self.instance(workload)
            await asyncio.sleep(0.005)

    async def is_still(self, workload: Workload) -> bool:
        """Tell whether one that counts comes to print nothing more; what is on its way may still come."""
        quiet, before, deadline = 0, -1, time.monotonic() + SECONDS
        while quiet < 20:  # as often as it would have counted on
            assert time.monotonic() < deadline, self.instance(workload)
            await asyncio.sleep(0.01)
            lines = len(await self.lines(workload))
            quiet, before = (quiet + 1 if lines == before else 0), lines
        return True

    async def says(self, workload: Workload, line: bytes) -> None:
        """Wait until it printed a line."""
        deadline = time.monotonic() + SECONDS
        while line not in (found := await self.lines(workload)):
            assert time.monotonic() < deadline, found
            assert self.instance(workload).alive, (self.instance(workload), found)
            await asyncio.sleep(0.005)

    async def says_in_the_end(self, workload: Workload, word: bytes) -> None:
        """Wait until its last line begins with a word, whether it then ended or not."""
        deadline = time.monotonic() + SECONDS
        while not (found := await self.lines(workload)) or not found[-1].startswith(word):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.005)

    def command(self, verb: str, *words: str) -> tuple[str, ...]:
        return (PYTHON, "-c", COMMANDS[verb], *words)

    async def enter(
        self, workload: Workload, *command: str, stdin: bytes | None = None
    ) -> tuple[int, bytes, bytes]:
        """Run a command in an instance; return its exit code, and what it wrote."""
        session = await self.runtime.exec(
            workload.plugin_uid, FIRST, command, stdin=stdin is not None, tty=False
        )
        try:
            if stdin is not None:
                await session.write(stdin)
                await session.close_stdin()
            said = {STDOUT: b"", STDERR: b""}
            async for channel, chunk in session.output():
                said[channel] += chunk
            return await session.wait(), said[STDOUT], said[STDERR]
        finally:
            await session.close()

    def workload(self, *words: str, name: str = "p", **changes: object) -> Workload:
        values = {
            "namespace": "default",
            "plugin": name,
            "plugin_uid": f"uid-{name}",
            "type": "python",
            "entrypoint": ("main.py", *words),
            "env": (),
            "config": "{}",
            "source": self.source("program", {"main.py": PROGRAM}),
            "limits": LIMITS,
            "isolation": "process",
            "grace": 5.0,
            "restart": "",
        }
        return Workload(**(values | changes))  # type: ignore[arg-type]

    def source(self, name: str, files: dict[str, str]) -> str:
        raise NotImplementedError


async def wait_for(holds: Callable[[], bool], otherwise: Callable[[], str] = str) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, otherwise()
        await asyncio.sleep(0.005)


class FakeHarness(Common):
    """The runtime in memory; it does what the same words say."""

    def __init__(self) -> None:
        super().__init__()
        self.host = FakeHost(behave)
        self.host.usage = Usage(at=1.0, cpu=0.5, memory=MIB, memory_peak=2 * MIB, pids=1, throttled=0.0)

    async def open(self) -> None:
        self.runtime = FakeRuntime(self.host)
        await self.runtime.open(self.heard.append)

    async def reopen(self) -> None:
        await self.runtime.close()
        await self.open()

    async def stranger(self) -> Runtime:
        return FakeRuntime(self.host, "stranger")

    async def close(self) -> None:
        await self.runtime.close()

    async def counts(self, workload: Workload) -> None:
        assert not self.instance(workload).frozen

    async def is_still(self, workload: Workload) -> bool:
        return self.instance(workload).frozen

    def source(self, name: str, files: dict[str, str]) -> str:
        del files
        return name

    def command(self, verb: str, *words: str) -> tuple[str, ...]:
        return (verb, *words)

    def leftovers(self) -> list[str]:
        return [str(key) for key in self.host.cells]


def behave(workload: Workload) -> Behaviour:
    """Do in the fake what PROGRAM does."""
    output: list[bytes] = []
    listens: dict[int, bytes | None] = {}
    found = Behaviour()
    if workload.type != "python":
        return Behaviour(problem="cannot run here")
    for word in workload.entrypoint[1:]:
        verb, _, value = word.partition(":")
        output += _printed(verb, value, workload)
        match verb:
            case "exit":
                found = Behaviour(code=int(value))
            case "die":
                found = Behaviour(signal=int(value))
            case "eat":
                found = Behaviour(oom=True)
            case "deaf":
                found = Behaviour(obeys=False)
            case "listen":
                listens[int(value)] = b"HTTP/1.1 200 OK\r\n\r\nhere"
    return Behaviour(
        output=tuple(output),
        code=found.code,
        signal=found.signal,
        oom=found.oom,
        obeys=found.obeys,
        listens=listens,
    )


def _printed(verb: str, value: str, workload: Workload) -> list[bytes]:
    lines = {
        "say": [value.encode()],
        "leave": [b"new"],
        "notice": [b"looking"],
        "reread": [b"read-only config.json", workload.config.encode()],
        "stay": [b"staying"],
    }
    return lines.get(verb, [])


class Looks:
    """Looks at what a host offers once for a session, which opens hundreds of runtimes: a look costs 0.2 s.

    What a look found, a failure too, holds for every later one of its kind.
    """

    def __init__(self) -> None:
        self._look = sandbox._probe
        self._found: dict[tuple[object, ...], str] = {}

    async def __call__(
        self, host: Host, settings: ProcessSettings, spawner: Spawner, passage: Passage | None = None
    ) -> None:
        kind = (host.libraries, settings.cgroup_parent, host.cgroups is None, passage is None)
        if kind not in self._found:
            try:
                await self._look(host, settings, spawner, passage)
                self._found[kind] = ""
            except CannotStart as error:
                self._found[kind] = str(error)
        if self._found[kind]:
            raise CannotStart(self._found[kind])


class ProcessHarness(Common):
    """The process runtime, in a directory of its own, with root file systems shared by the whole session."""

    def __init__(self, place: Path, roots: Path, cgroup_parent: str | None) -> None:
        super().__init__()
        self.place = place
        self.control_plane = f"test-{os.getpid()}-{place.name[-12:].strip('-_')}"
        self.cgroup_parent = cgroup_parent
        self.sources = place / "sources"
        self.sources.mkdir()
        self.state = self._state_dir("state", roots)
        self.roots = roots
        self.strangers: list[Runtime] = []

    def settings(self, **changes: object) -> ProcessSettings:
        values = {
            "state_dir": self.state,
            "control_plane": self.control_plane,
            "cgroup_parent": self.cgroup_parent,
            "volumes": self.volumes,
            "roots_cache": default_cache() / "roots",
            "logs": LogLimits(files=3, file_bytes=MIB, rate=MIB, burst=MIB),
            "bus_authority": Seal(self.place / "bus-authority").authority,
        }
        return ProcessSettings(**(values | changes))  # type: ignore[arg-type]

    async def open(self) -> None:
        self.runtime = ProcessRuntime(self.settings(), self.sources.joinpath, self.secrets_of)
        await self.runtime.open(self.heard.append)

    async def reopen(self) -> None:
        await self.runtime.close()
        await self.open()

    async def stranger(self) -> Runtime:
        settings = self.settings(
            state_dir=self._state_dir("other", self.roots),
            control_plane=f"{self.control_plane}-other",
            uid_base=1_800_000_000,
        )
        runtime = ProcessRuntime(settings, self.sources.joinpath)
        await runtime.open(lambda _: None)
        self.strangers.append(runtime)
        return runtime

    async def close(self) -> None:
        for runtime in (self.runtime, *self.strangers):
            for instance in runtime.instances():
                await runtime.remove(instance.plugin_uid, instance.slot)
            await runtime.close()

    def source(self, name: str, files: dict[str, str]) -> str:
        place = self.sources / name
        for path, text in files.items():
            file = place / path
            if file.exists() and file.read_text() == text:
                continue  # a plugin may be reading it right now
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755)
            file.parent.chmod(0o755)
        return name

    def script(self, text: str, name: str = "s", *words: str, **changes: object) -> Workload:
        """Return a workload with a program of its own."""
        source = self.source(f"script-{name}", {"main.py": text})
        return self.workload(name=name, source=source, **({"entrypoint": ("main.py", *words)} | changes))

    def leftovers(self) -> list[str]:
        mark = f"crucible:{self.control_plane}/".encode()
        found = [str(path) for path in everything(self.state / "instances")]
        found += [str(pid) for pid in processes() if mark in cmdline(pid)]
        group = f"crucible-{self.control_plane}"
        found += [str(path) for path in everything(Path("/sys/fs/cgroup")) if path.name == group]
        return found + [
            line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.place) in line
        ]

    def _state_dir(self, name: str, roots: Path) -> Path:
        state = self.place / name
        if not state.exists():
            state.mkdir(mode=0o700)
            (state / "roots").symlink_to(roots)
        return state


def exists(pid: int | None) -> bool:
    return pid is not None and Path(f"/proc/{pid}").exists()


def facts(pid: int | None) -> tuple[int, dict[str, str]]:
    """Return a process's owner on this host, and what its status file says."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return Path(f"/proc/{pid}").stat().st_uid, {k: v.strip() for k, _, v in (x.partition(":") for x in lines)}


def clear(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
