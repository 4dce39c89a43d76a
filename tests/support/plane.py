"""A real control plane as a subprocess, and what can be seen of it from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onlooker import below, cmdline, processes

from crucible.control.client import Client
from crucible.control.kubeconfig import load_endpoint
from crucible.errors import CrucibleError, NotFound, Unavailable
from crucible.settings import Places

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PLUGINS = "/apis/crucible.dev/v1alpha1/namespaces/default/plugins"
DEADLINE = 120.0


class Plane:
    """One state folder and the ``crucible up`` that serves it, now or next.

    Attributes:
        places: the state folder.
        process: the controller; None while none runs.
    """

    def __init__(
        self,
        root: Path,
        *arguments: str,
        become: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare; start nothing.

        Args:
            root: the state folder.
            arguments: more of ``crucible up``.
            become: a command that runs another, put before it.
            environment: variables for it besides those there are.
        """
        self.places = Places(root)
        self._environment = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self._argv = [
            *become,
            *(str(Path(sys.executable).with_name("crucible")), "up", "--state", str(root), *arguments),
        ]
        self._log = root.with_suffix(".log")

    def start(self) -> None:
        """Start a controller; do not wait for it."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._argv, stdout=log, stderr=log, start_new_session=True, env=self._environment
            )

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the controller a signal, wait for its end, return its exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE)
        self.process = None
        return code

    def log(self) -> str:
        """Return all that controllers of this folder said."""
        return self._log.read_text() if self._log.exists() else ""

    async def ready(self) -> None:
        """Wait until the API server answers."""

        async def answers() -> bool:
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"the controller ended with {self.process.returncode}:\n{self.log()}")
            try:
                async with Client(load_endpoint(self.places.kubeconfig)) as client:
                    await client.get("/version")
            except (NotFound, Unavailable):
                return False
            return True

        await until(answers)

    def client(self) -> Client:
        """Return a client of the API server."""
        return Client(load_endpoint(self.places.kubeconfig))

    def mark(self) -> str:
        """Return the id that marks this control plane's processes and cgroups."""
        return (self.places.root / "id").read_text().strip()

    def sandboxes(self) -> Counter[str]:
        """Return how many sandboxes run for each ``plugin uid/ordinal``, as the kernel sees them."""
        found: Counter[str] = Counter()
        for marker in self._markers():
            uid, _, slot = marker.partition("/")
            found[f"{uid}/{slot.partition('-')[0]}"] += 1
        return found

    def _markers(self) -> list[str]:
        """Return ``uid/slot`` of every bubblewrap monitor: those of its processes in our pid namespace."""
        prefix = f"crucible:{self.mark()}/"
        ours = Path("/proc/self/ns/pid").readlink()
        markers = []
        for pid in processes():
            first = cmdline(pid).partition(b"\0")[0].decode(errors="replace")
            with suppress(OSError):
                if first.startswith(prefix) and Path(f"/proc/{pid}/ns/pid").readlink() == ours:
                    markers.append(first.removeprefix(prefix))
        return markers

    def leftovers(self) -> list[str]:
        """Return what exists of plugins outside the API server: processes, cgroups, instance folders."""
        cgroups = [
            str(path)
            for pattern in (f"*/crucible-{self.mark()}/*", f"crucible-{self.mark()}/*")
            for path in below(Path("/sys/fs/cgroup"), pattern)
            if path.is_dir()
        ]
        folders = [str(path) for path in below(self.places.process / "instances", "*/*")]
        mounts = [
            line
            for line in Path("/proc/self/mounts").read_text().splitlines()
            if str(self.places.root) in line
        ]
        return [*self._markers(), *cgroups, *folders, *mounts]


async def until(
    holds: Callable[[], Any], deadline: float = DEADLINE, why: Callable[[], object] = str
) -> None:
    """Wait until something holds.

    Args:
        holds: a function or coroutine function.
        deadline: seconds after which waiting fails.
        why: called then, for the message.
    """
    try:
        async with asyncio.timeout(deadline):
            while True:
                answer = holds()
                if asyncio.iscoroutine(answer):
                    answer = await answer
                if answer:
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {deadline} s: {why()}") from None


async def insist(work: Callable[[], Any]) -> Any:
    """Do something through an API server that may be away: again until it answers."""
    for _ in range(round(DEADLINE / 0.1)):
        try:
            return await work()
        except Unavailable:
            await asyncio.sleep(0.1)
    raise AssertionError("the API server stays away")


def manifest(
    name: str, program: str = "import time\nwhile True: time.sleep(3600)\n", **spec: Any
) -> dict[str, Any]:
    """Return a Plugin to create."""
    return {
        "apiVersion": "crucible.dev/v1alpha1",
        "kind": "Plugin",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "version": "1.0.0",
            "type": "python",
            "source": {"inline": {"main.py": program}},
            "entrypoint": ["main.py"],
            **spec,
        },
    }


__all__ = ["PLUGINS", "CrucibleError", "Plane", "insist", "manifest", "until"]
