"""Around the demonstration: a control plane of its own, bait on the host, a look at what is left."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible.cli.api import Api
from crucible.cli.objects import collection, plugin_path
from crucible.control.kubeconfig import load_endpoint
from crucible.errors import CrucibleError
from crucible.settings import Places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

START_SECONDS = 120.0
STOP_SECONDS = 60.0


class NotSeen(Exception):
    """Something that had to happen did not."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A running control plane, and how to talk to it.

    Attributes:
        places: its state folder.
        api: its API server.
        process: the control plane itself.
        folder: for manifests and bait.
    """

    places: Places
    api: Api
    process: subprocess.Popen[str]
    folder: Path

    def crucible(self, *words: str, code: int = 0) -> str:
        """Run a command as a person would, and return what it printed.

        Raises:
            NotSeen: it ended with another exit code than expected.
        """
        done = subprocess.run(
            [sys.executable, "-m", "crucible", *words, "--state", str(self.places.root)],
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        if done.returncode != code:
            what = (done.stderr or done.stdout).strip()
            raise NotSeen(f"crucible {' '.join(words)} ended with {done.returncode}, not {code}: {what}")
        return done.stdout + done.stderr

    def plugin(self, name: str) -> dict[str, Any]:
        """Return a Plugin as it is now."""
        return self.api.get(plugin_path("default", name))

    def until(self, name: str, seen: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any]:
        """Watch a Plugin until it is as expected, and return it.

        Raises:
            NotSeen: time ran out.
        """
        deadline = time.monotonic() + seconds
        while True:
            last = self.plugin(name)
            if seen(last):
                return last
            if time.monotonic() > deadline:
                raise NotSeen(f"{name} was not seen as expected within {seconds:g} s: {last.get('status')}")
            for found in self._changes(name, last["metadata"]["resourceVersion"]):
                if seen(found):
                    return found

    def _changes(self, name: str, version: str) -> Iterator[dict[str, Any]]:
        """Yield what becomes of a Plugin, for a second."""
        asked = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "1"}
        asked["fieldSelector"] = f"metadata.name={name}"
        with self.api.stream(collection("default"), asked) as lines:
            for line in lines:
                event = json.loads(line)
                if event["type"] in {"ADDED", "MODIFIED"}:
                    yield event["object"]


@contextmanager
def stage() -> Iterator[Stage]:
    """Start a control plane with a state folder of its own; stop it and remove the folder at the end."""
    folder = Path(tempfile.mkdtemp(prefix="crucible-demo-"))
    places = Places(folder / "state")
    log = folder / "controller.log"
    try:
        with ExitStack() as stack:
            process = _start(places, log)
            stack.callback(_stop, process)
            _await_ready(process, log)
            api = stack.enter_context(Api(load_endpoint(places.kubeconfig)))
            yield Stage(places, api, process, folder)
    except (NotSeen, CrucibleError):
        sys.stderr.write("".join(f"  controller | {line}\n" for line in log.read_text().splitlines()[-20:]))
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(places: Places, log: Path) -> subprocess.Popen[str]:
    with log.open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "crucible", "up", "--state", str(places.root)],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for the demonstration, which then clears away in order
        )


def _await_ready(process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while "is ready" not in log.read_text():
        if process.poll() is not None:
            raise NotSeen(f"the control plane ended with {process.returncode} instead of getting ready")
        if time.monotonic() > deadline:
            raise NotSeen(f"the control plane is not ready after {START_SECONDS:g} s")
        time.sleep(0.02)


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def leftovers(identity: str, places: Places, *, stopped: bool = False) -> list[str]:
    """Return what is left of a control plane's plugins on this host: processes, cgroups, mounts, files.

    Args:
        identity: of the control plane; everything it makes bears it.
        places: its state folder.
        stopped: it runs no more, so that its own cgroup has to be gone too.
    """
    mark = f"crucible:{identity}/".encode()
    found = [f"process {pid}" for pid in _pids() if _command_line(pid).startswith(mark)]
    cgroups = Path("/sys/fs/cgroup")
    for own in cgroups.rglob(f"crucible-{identity}"):
        found += [f"cgroup {path}" for path in ([own] if stopped else own.glob("*/"))]
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    found += [f"mount {line.split()[1]}" for line in mounts if str(places.root) in line]
    for folder in (places.sources, places.process / "instances"):
        found += [f"file {path}" for path in (folder.iterdir() if folder.is_dir() else ())]
    return found


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
