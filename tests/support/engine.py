"""A private Docker engine for tests: in namespaces of its own, gone with whoever started it.

Its network namespace keeps the host's firewall untouched, its pid namespace ends every container with it. The
engine of ``DOCKER_HOST`` is used instead where that is set.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 120.0
PACKAGES = ("docker.io", "iptables", "iproute2", "tini")
NETWORKS = "network/files/local-kv.db"
"""Where an engine keeps, below its data, which networks there are."""
TORN = "libnetwork.(*controller).reservePools"
"""What an engine panics in, at every start, that was killed while it removed a network (moby/moby#45057)."""

# The first process of the namespaces: starts the engine, and starts it again whenever it is told to by the
# file `start` appearing; reaps what is orphaned. All end when it does.
_INIT = """
import os, subprocess, sys, time
place, disk, *argv = sys.argv[1:]
subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
if disk:
    data = os.path.join(place, "data")
    os.makedirs(data)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + disk, "data", data], check=True)
want, log = os.path.join(place, "start"), open(os.path.join(place, "dockerd.log"), "ab")
while True:
    if os.path.exists(want):
        os.unlink(want)
        for name in ("docker.pid", "exec/containerd/containerd.pid"):
            try: os.unlink(os.path.join(place, name))
            except FileNotFoundError: pass
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        child = subprocess.Popen(argv, start_new_session=True, **streams)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: pass
    except ChildProcessError: pass
    time.sleep(0.02)
"""


def missing() -> str:
    """Return why no private engine can run here and how to enable it; empty when one can."""
    if os.environ.get("DOCKER_HOST"):
        return ""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a private Docker engine needs root on Linux: set DOCKER_HOST to an engine, or run as root"
    if not installed() and shutil.which("apt-get") is None:
        return "no dockerd on PATH: install a Docker engine, or set DOCKER_HOST to one"
    return ""


def installed() -> bool:
    """Whether every program a private engine needs is there."""
    return all(shutil.which(name) for name in ("dockerd", "iptables", "ip", "docker-init"))


def install() -> None:
    """Install the engine from Debian's packages, without starting one for the whole host."""
    with Path(tempfile.gettempdir(), "crucible-engine-install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers come here at once
        if not installed():
            _install()


def _install() -> None:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES],
    ):
        subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)


class Engine:
    """One engine: its address, and the means to break it.

    Attributes:
        place: its folder.
        url: what ``DOCKER_HOST`` would say.
    """

    def __init__(self, place: Path, *options: str, disk: str = "") -> None:
        self.place = place
        self.url = f"unix://{place}/docker.sock"
        self._options = options
        self._disk = disk
        self._process: subprocess.Popen[bytes] | None = None
        self._said = 0

    @property
    def cgroup_parent(self) -> str:
        """The cgroup below which every container is."""
        return f"/crucible-engine-{self.place.name}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        argv = [
            "dockerd",
            *("-H", self.url, "--data-root", f"{self.place}/data", "--exec-root", f"{self.place}/exec"),
            *("--pidfile", f"{self.place}/docker.pid", "--cgroup-parent", self.cgroup_parent),
            *self._options,
        ]
        self.revive(wait=False)
        self._process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL"),  # gone with whoever started it, however that ends
                *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=KILL"),
                *(sys.executable, "-c", _INIT, str(self.place), self._disk, *argv),
            ],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.wait()

    def wait(self) -> None:
        """Wait until it answers; one that never would again with its networks starts without them."""
        deadline = time.monotonic() + SECONDS
        while not self.answers():
            if TORN in self.log()[self._said :]:
                self.forget_networks()
                self.revive(wait=False)
            if time.monotonic() > deadline or (self._process and self._process.poll() is not None):
                raise TimeoutError(self.log()[-4000:])
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it answers now; Docker's library would leave a socket open where it ends meanwhile."""
        try:
            with socket.socket(socket.AF_UNIX) as caller:
                caller.settimeout(5)
                caller.connect(self.url.removeprefix("unix://"))
                caller.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return caller.recv(64).split(b" ")[1:2] == [b"200"]
        except OSError:
            return False

    def kill(self) -> None:
        """End the engine itself as a crash does; its containers are left as they are."""
        assert self._process is not None
        for pid in _below(self._process.pid):
            if _program(pid) == "dockerd":
                os.kill(pid, signal.SIGKILL)

    def revive(self, *, wait: bool = True) -> None:
        """Start the engine anew after :meth:`kill`."""
        self._said = len(self.log())
        (self.place / "start").touch()
        if wait:
            self.wait()

    def forget_networks(self) -> None:
        """Take its list of networks from an engine that does not run."""
        subprocess.run(self.inside("rm", "-f", f"{self.place}/data/{NETWORKS}"), check=True)

    def freeze(self, *, held: bool) -> None:
        """Stop the engine from answering without ending it, or let it go on."""
        assert self._process is not None
        for pid in _below(self._process.pid):
            if _program(pid) == "dockerd":
                os.kill(pid, signal.SIGSTOP if held else signal.SIGCONT)

    def inside(self, *command: str) -> list[str]:
        """Return a command line that runs a command in the engine's network and mounts."""
        assert self._process is not None
        child = _children(self._process.pid)[0]
        return ["nsenter", "--target", str(child), "--net", "--mount", "--", *command]

    def log(self) -> str:
        """Return what it said."""
        path = self.place / "dockerd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def end(self) -> None:
        """End it and every container, and delete all it made."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        _remove_cgroups(self.cgroup_parent)
        shutil.rmtree(self.place, ignore_errors=True)


@contextlib.contextmanager
def private_engine(*options: str, disk: str = "") -> Iterator[Engine]:
    """Run an engine of one's own, with a disk of its own of some size (``24m``) where that is given."""
    install()
    place = Path(tempfile.mkdtemp(prefix="eng", dir="/var/tmp"))
    engine = Engine(place, *options, disk=disk)
    try:
        engine.start()
        yield engine
    finally:
        engine.end()


@contextlib.contextmanager
def engine_for_tests() -> Iterator[Engine]:
    """Run an engine, or use the one of ``DOCKER_HOST``, which cannot be broken and is left as it is."""
    url = os.environ.get("DOCKER_HOST")
    if not url:
        with private_engine() as engine:
            yield engine
        return
    engine = Engine(Path(tempfile.mkdtemp(prefix="eng", dir="/var/tmp")))
    engine.url = url
    yield engine
    engine.place.rmdir()


def load_images(engine: Engine, *types: str) -> None:
    """Build the images of these types, or all, where they are not built yet, and load them."""
    subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts/images"), "--load", *types],
        check=True,
        env={**os.environ, "DOCKER_HOST": engine.url},
        stdout=subprocess.DEVNULL,
    )


def client(url: str, **options: Any) -> docker.APIClient:
    """Return a plain client, for what a test wants to see for itself."""
    return docker.APIClient(url, version="1.41", timeout=60, **options)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _below(pid: int) -> list[int]:
    return [one for child in _children(pid) for one in (child, *_below(child))]


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _remove_cgroups(parent: str) -> None:
    deadline = time.monotonic() + SECONDS
    left = [path for root in Path("/sys/fs/cgroup").iterdir() if (path := root / parent.strip("/")).is_dir()]
    while left and time.monotonic() < deadline:
        for top in left:
            for at, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(at).rmdir()
        left = [path for path in left if path.is_dir()]
        time.sleep(0.05)
