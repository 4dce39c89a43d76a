"""Reaches for the network: the host's loopback, the world, raw packets, sockets of other kinds."""

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from outcome import Outcome, got, nothing

SECONDS = 3.0
WORLD = ("1.1.1.1", 443)
METADATA = ("169.254.169.254", 80)


def attempts(config: dict[str, Any]) -> dict[str, Callable[[], Outcome]]:
    """Return what to try."""
    port, path = config["hostPort"], config["hostSocket"]
    return {
        "reach the host's loopback": partial(connect, ("127.0.0.1", port or 22)),
        "reach the host's loopback by IPv6": partial(connect6, port or 22),
        "reach a host's socket file": partial(connect_unix, path or "/run/docker.sock"),
        "reach a host's abstract socket": partial(connect_unix, "\0" + (path or "/tmp/.X11-unix/X0")),
        "reach the world": partial(connect, WORLD),
        "reach the cloud's metadata": partial(connect, METADATA),
        "send a datagram to the world": send,
        "resolve a name": resolve,
        "find an interface": interfaces,
        "open a raw socket": partial(open_socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "open a packet socket": partial(open_socket, socket.AF_PACKET, socket.SOCK_RAW, 0),
        "reach the hypervisor": partial(open_socket, socket.AF_VSOCK, socket.SOCK_STREAM, 0),
        "use the kernel's ciphers": partial(open_socket, socket.AF_ALG, socket.SOCK_SEQPACKET, 0),
    }


def connect(where: tuple[str, int]) -> Outcome:
    """Open a TCP connection."""
    with socket.create_connection(where, timeout=SECONDS):
        return got(f"connected to {where}")


def connect6(port: int) -> Outcome:
    """Open a TCP connection to the loopback address of IPv6."""
    with socket.socket(socket.AF_INET6) as made:
        made.settimeout(SECONDS)
        made.connect(("::1", port))
        return got("connected")


def connect_unix(path: str) -> Outcome:
    """Connect to a Unix socket; a leading zero byte names an abstract one."""
    with socket.socket(socket.AF_UNIX) as made:
        made.settimeout(SECONDS)
        made.connect(path)
        return got("connected")


def send() -> Outcome:
    """Send a datagram, which needs no answer to have done harm."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(b"hello", WORLD)
        return got("sent")


def resolve() -> Outcome:
    """Ask for an address, as data is smuggled out in names."""
    return got(f"resolved to {socket.gethostbyname('example.com')}")


def interfaces() -> Outcome:
    """Look for an interface other than the loopback."""
    found = [name for _, name in socket.if_nameindex() if name != "lo"]
    return got(f"found {found}") if found else nothing("only lo")


def open_socket(family: int, kind: int, protocol: int) -> Outcome:
    """Open a socket that can do more than connect."""
    with socket.socket(family, kind, protocol):
        return got("opened")
