"""Two networks of a test's own with a wire between them, and ears on both."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

ADDRESSES = ("10.77.0.1", "10.77.0.2")
_EAR = """
import socket, sys, threading, os
ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
out = open(sys.argv[1], "wb", buffering=0)
print("ready", flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
while True:
    packet = ear.recv(65536)
    out.write(len(packet).to_bytes(4, "big") + packet)
"""


def missing() -> str:
    """Say why this host has no networks for tests; empty when it has."""
    if os.geteuid() != 0:
        return "making networks needs root: run the tests as root"
    absent = [name for name in ("ip", "nsenter", "unshare") if shutil.which(name) is None]
    return f"install iproute2 and util-linux: there is no {', '.join(absent)}" if absent else ""


class Networks:
    """Networks 0 and 1, joined; whatever is started in them ends with them."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._holders: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        for _ in ADDRESSES:
            self._holders.append(self._start("unshare", "--net", "sh", "-c", "echo ready; cat"))
        first, second = (str(holder.pid) for holder in self._holders)
        names = ("left", "right")
        run = ("ip", "link", "add", names[0], "netns", first, "type", "veth", "peer", "name", names[1])
        subprocess.run([*run, "netns", second], check=True)
        for number, (name, address) in enumerate(zip(names, ADDRESSES, strict=True)):
            for words in (
                ("addr", "add", f"{address}/24", "dev", name),
                ("link", "set", name, "up"),
                ("link", "set", "lo", "up"),
            ):
                subprocess.run(self.inside(number, "ip", *words), check=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def inside(self, number: int, *command: str) -> list[str]:
        """Return a command that runs in one of the networks."""
        return ["nsenter", f"--net=/proc/{self._holders[number].pid}/ns/net", "--", *command]

    def start(self, number: int, *command: str) -> subprocess.Popen[str]:
        """Start a program in one of them that says ready, and ends when its input does."""
        return self._start(*self.inside(number, *command))

    def listen(self, number: int, file: Path) -> subprocess.Popen[str]:
        """Write every packet of one of them to a file, each behind its length."""
        return self.start(number, sys.executable, "-c", _EAR, str(file))

    def _start(self, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._stack.callback(_finish, process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", command
        return process


def _finish(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


def packets(file: Path) -> list[bytes]:
    """Return the packets that were heard."""
    data, found, at = file.read_bytes(), [], 0
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found
