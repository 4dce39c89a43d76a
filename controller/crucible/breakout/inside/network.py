"""Reaches for the network: the host, other plugins, the world, names, raw packets, sockets of other kinds."""

import os
import socket
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from outcome import Attempt, Outcome, got, nothing

SECONDS = 2.0
AUDIT, NETFILTER = 9, 12
PLACES = {
    "the world": ("192.0.2.1", 443),
    "the world by IPv6": ("2001:db8::1", 443),
    "the cloud's metadata": ("169.254.169.254", 80),
    "the cloud's metadata by IPv6": ("fd00:ec2::254", 80),
    "a private network": ("10.0.0.1", 443),
    "another private network": ("172.16.0.1", 443),
    "a home's network": ("192.168.0.1", 443),
    "a carrier's network": ("100.64.0.1", 443),
    "a link-local address by IPv6": ("fe80::1", 80),
    "a multicast group": ("224.0.0.251", 5353),
}
"""Addresses that nobody has (documentation ranges), or that must never answer a plugin."""
ODD_FAMILIES = {
    "a packet": (socket.AF_PACKET, socket.SOCK_RAW, 0),
    "a hypervisor": (40, socket.SOCK_STREAM, 0),
    "a cipher": (38, socket.SOCK_SEQPACKET, 0),
    "an audit": (socket.AF_NETLINK, socket.SOCK_RAW, AUDIT),
    "a firewall": (socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER),
    "a Bluetooth": (31, socket.SOCK_RAW, 1),
    "an XDP": (44, socket.SOCK_RAW, 0),
    "a TIPC": (30, socket.SOCK_STREAM, 0),
}


def attempts(config: dict[str, Any]) -> dict[str, Attempt]:
    """Return what to try.

    Of ``config``: ``hostPort`` and ``hostSocket`` listen on the host, ``hostAddresses`` are the host's own,
    ``otherPort`` is one that another plugin listens on, ``neighbours`` are addresses and ports by name,
    ``routesOnly`` says not to connect where there is a route: that one is there is bad enough.
    """
    port, path = config.get("hostPort") or 22, config.get("hostSocket") or "/run/docker.sock"
    bare = config.get("routesOnly", False)
    hosts = [*config.get("hostAddresses", []), *gateways()]
    return {
        "reach the host's loopback": Attempt("network", partial(connect, ("127.0.0.1", port)), own_port),
        "reach the host's loopback by IPv6": Attempt("network", partial(connect, ("::1", port)), own_port),
        "reach the host by its addresses": Attempt("network", partial(connect_any, hosts, port), own_port),
        "reach another plugin's port": Attempt(
            "network", partial(connect, ("127.0.0.1", config.get("otherPort") or 8081)), own_port
        ),
        "reach a host's socket file": Attempt("rootFilesystem", partial(connect_unix, path), own_socket),
        "reach a host's abstract socket": Attempt(
            "network", partial(connect_unix, "\0" + path), own_abstract_socket
        ),
        **{
            f"reach {name}": Attempt("network", partial(reach, where, routes_only=bare), own_port)
            for name, where in PLACES.items()
        },
        **{
            f"reach {name}": Attempt("network", partial(connect, (where[0], int(where[1]))), own_port)
            for name, where in {**config.get("neighbours", {}), **api_server()}.items()
        },
        "send a datagram to the world": Attempt("network", partial(send, routes_only=bare), own_datagram),
        "smuggle data out in names": Attempt("network", partial(ask_names, routes_only=bare), own_name),
        **({} if config.get("pod") else {"find an interface": Attempt("network", interfaces, own_interface)}),
        "open a raw socket": Attempt("privileges", partial(open_socket, (2, socket.SOCK_RAW, 1)), own_port),
        "open a raw socket by IPv6": Attempt(
            "privileges", partial(open_socket, (10, socket.SOCK_RAW, 58)), own_port
        ),
        **{
            f"open {name} socket": Attempt("systemCalls", partial(open_socket, kind), own_pair)
            for name, kind in ODD_FAMILIES.items()
        },
        "configure an interface": Attempt("privileges", configure, own_interface),
    }


def api_server() -> dict[str, tuple[str, str]]:
    """Return where a cluster's API server is, as every pod is told."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    return {"the cluster's API server": (host, os.environ["KUBERNETES_SERVICE_PORT"])} if host else {}


def gateways() -> list[str]:
    """Return the addresses that packets would be sent through, where a host is usually found."""
    lines = _lines("/proc/net/route")[1:]
    words = [line.split() for line in lines]
    return [socket.inet_ntoa(struct.pack("<I", int(word[2], 16))) for word in words if word[2] != "00000000"]


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def connect(where: tuple[str, int]) -> Outcome:
    """Open a TCP connection."""
    with socket.create_connection(where, timeout=SECONDS):
        return got(f"connected to {where}")


def connect_any(addresses: list[str], port: int) -> Outcome:
    """Open a TCP connection to the first address that answers."""
    for address in addresses:
        try:
            return connect((address, port))
        except OSError:
            continue
    return nothing(f"none of {addresses} answers")


def reach(where: tuple[str, int], *, routes_only: bool) -> Outcome:
    """Look whether packets would go anywhere; only if so, send one and wait for an answer."""
    family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.connect(where)  # sends nothing: it asks the kernel for a route
    return got("there is a route") if routes_only else connect(where)


def connect_unix(path: str) -> Outcome:
    """Connect to a Unix socket; a leading zero byte names an abstract one."""
    with socket.socket(socket.AF_UNIX) as made:
        made.settimeout(SECONDS)
        made.connect(path)
        return got("connected")


def send(*, routes_only: bool) -> Outcome:
    """Send a datagram, which needs no answer to have done harm."""
    where = PLACES["the world"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.connect(where)
        if routes_only:
            return got("there is a route")
        made.send(b"hello")
        made.settimeout(SECONDS)
        try:
            made.recv(1)
        except TimeoutError:
            return nothing("nothing came of it")
        return got("it was answered")


def ask_names(*, routes_only: bool) -> Outcome:
    """Ask a resolver for a name; any answer at all, even that there is none, carries data out."""
    query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x06secret\x08breakout\x07invalid\0\0\x01\0\x01"
    servers = [line.split()[1] for line in _lines("/etc/resolv.conf") if line.startswith("nameserver ")]
    for server in [*servers, "127.0.0.1", "127.0.0.53"]:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as made:
            made.settimeout(SECONDS)
            try:
                made.connect((server, 53))
                if routes_only and not server.startswith("127."):
                    return got(f"there is a route to {server}")
                made.send(query)
                if made.recv(512):
                    return got(f"{server} answered")
            except OSError:
                continue
    return nothing("no resolver answers")


def interfaces() -> Outcome:
    """Look for an interface that leads anywhere: one with a route that is not the loopback's."""
    found = sorted({line.split()[0] for line in _lines("/proc/net/route")[1:]} - {"lo"})
    others = [name for _, name in socket.if_nameindex() if name != "lo"]
    if found or others:
        return got(f"found {sorted({*found, *others})}")
    return nothing("only lo")


def open_socket(kind: tuple[int, int, int]) -> Outcome:
    """Open a socket that can do more than connect."""
    with socket.socket(*kind):
        return got("opened")


def configure() -> Outcome:
    """Take down its own loopback: who can do that can configure any interface."""
    import fcntl  # noqa: PLC0415 - only this one needs it

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        fcntl.ioctl(made, 0x8914, struct.pack("16sh", b"lo", 0))
        return got("took lo down")


def own_port() -> bool:
    """Talk to itself over its own loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname(), timeout=SECONDS) as made:
            made.sendall(b"hello")
        return server.accept()[0].recv(5) == b"hello"


def own_datagram() -> bool:
    """Send itself a datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        one.sendto(b"hello", one.getsockname())
        return one.recv(5) == b"hello"


def own_socket() -> bool:
    """Serve a Unix socket in its own scratch space."""
    return _served("/tmp/own.sock")


def own_abstract_socket() -> bool:
    """Serve an abstract socket of its own."""
    return _served(f"\0own-{os.getpid()}")


def _served(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as made:
        server.bind(address)
        server.listen()
        made.connect(address)
        made.sendall(b"hello")
        return server.accept()[0].recv(5) == b"hello"


def own_pair() -> bool:
    """Open the sockets that programs use."""
    one, other = socket.socketpair()
    one.sendall(b"hello")
    return other.recv(5) == b"hello"


def own_name() -> bool:
    """Find itself by the name that every host has."""
    return socket.gethostbyname("localhost").startswith("127.")


def own_interface() -> bool:
    """Find its own loopback, up."""
    return "lo" in dict(_pairs()) and own_port()


def _pairs() -> Iterator[tuple[str, int]]:
    return ((name, number) for number, name in socket.if_nameindex())
