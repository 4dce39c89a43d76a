"""The network of a plugin that listens or is let out, and the relay that lets the host in and nobody out.

Each such plugin has an internal network of its own whose bridge has no address, so it reaches neither the
host, nor the outside, nor another plugin. Its relay, a small container of ours, is in that network and in one
with a way to the host; it takes connections on loopback ports of the host and hands them on. Bodies are pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from crucible.core.doors import PROXY_PORT
from crucible.core.profiles import PROFILES
from crucible.core.seccomp_json import document
from crucible.model.door import Door, socket_path
from crucible.runtimes.docker import labels as marks

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from crucible.runtimes.docker.body import Image

PORTS: Final = marks.PREFIX + "ports"
NOWHERE: Final = "192.0.2.1"
"""An address that is nobody's (RFC 5737). As name server it makes an engine ask from inside the container's
network, where nothing answers; older engines would otherwise ask the host's, and names carry data."""
NO_NAMES: Final = {"Dns": [NOWHERE], "DnsSearch": ["."], "DnsOptions": ["timeout:1", "attempts:1"]}
"""Names outside are nobody's, which is found out soon; the search list of the host stays the host's."""
OUT: Final = 0
"""Among the ports of a relay: the other way, from the plugin to the egress proxy, by the relay's own door."""
PROXY: Final = "egress"
"""The name by which a plugin finds its relay as the egress proxy."""
RELAY_USER: Final = 65534
ROUTES: Final = "/run/routes"
"""Where a relay that lets others in finds the file that says to whom."""
ROUTED: Final = marks.PREFIX + "routed"
"""On a relay that looks there; those of earlier releases do not."""
_MEMORY: Final = 48 << 20

# New connections go to the instances that the file names, in any order; where none of them takes one, or none
# is named, to any there is. One thread each way; a plugin that is not up yet, or not any more, ends the
# connection. Nobody is let in before there is room, and no thread begun: who comes meanwhile waits in the
# socket's queue.
RELAY: Final = (
    """\
import random, socket, sys, threading, time
room = threading.BoundedSemaphore(128)
def pour(one, other):
    try:
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        for each in (one, other):
            try: each.shutdown(socket.SHUT_RDWR)
            except OSError: continue
def route():
    try:
        with open("ROUTES/route") as file: names = ["plugin-" + slot for slot in file.read().split()]
    except OSError: return ["plugin"]
    return [*random.sample(names, len(names)), "plugin"]
def reach(port):
    if port:
        for name in route():
            try: return socket.create_connection((name, port), 10)
            except OSError: continue
        raise OSError
    target = socket.socket(socket.AF_UNIX)
    target.connect(DOOR)
    return target
def serve(caller, port):
    with caller:
        try: target = reach(port)
        except OSError: return
        with target:
            target.settimeout(None)
            back = threading.Thread(target=pour, args=(target, caller), daemon=True)
            back.start()
            pour(caller, target)
            back.join()
def attend(caller, port):
    try: serve(caller, port)
    finally: room.release()
def listen(port):
    with socket.create_server(("", port or PROXY_PORT), backlog=128) as server:
        while True:
            room.acquire()
            try: caller, _ = server.accept()
            except OSError:
                room.release()
                time.sleep(0.1)
                continue
            try: threading.Thread(target=attend, args=(caller, port), daemon=True).start()
            except RuntimeError:
                caller.close()
                room.release()
for port in map(int, sys.argv[1:]):
    threading.Thread(target=listen, args=(port,)).start()
""".replace("PROXY_PORT", str(PROXY_PORT))
    .replace("DOOR", repr(socket_path(Door.EGRESS)))
    .replace("ROUTES", ROUTES)
)

# Ends once the relay listens for the plugin.
WAIT: Final = f"""\
import socket, time
for _ in range(3000):
    try: socket.create_connection(("127.0.0.1", {PROXY_PORT}), 10).close()
    except OSError: time.sleep(0.01)
    else: raise SystemExit(0)
raise SystemExit(1)
"""


def network_name(control_plane: str, plugin_uid: str) -> str:
    """Return the name of a plugin's own network."""
    return f"crucible-{control_plane}-{plugin_uid}"


def edge_name(control_plane: str) -> str:
    """Return the name of the network through which relays can be reached."""
    return f"crucible-{control_plane}-edge"


def relay_name(control_plane: str, plugin_uid: str) -> str:
    """Return the name of a plugin's relay."""
    return f"crucible-{control_plane}-{plugin_uid}-relay"


def relay_labels(control_plane: str, plugin_uid: str) -> dict[str, str]:
    """Return by what a plugin's relay is known, beside its name."""
    return {marks.CONTROL_PLANE: control_plane, marks.PLUGIN_UID: plugin_uid, marks.ROLE: "relay"}


def network_arguments(control_plane: str, plugin_uid: str, ports: tuple[int, ...]) -> dict[str, Any]:
    """Describe a plugin's own network: no way out, and no host at its gateway's address."""
    return {
        "name": network_name(control_plane, plugin_uid),
        "driver": "bridge",
        "check_duplicate": True,
        "internal": True,
        "options": {"com.docker.network.bridge.inhibit_ipv4": "true"},
        "labels": {
            marks.CONTROL_PLANE: control_plane,
            marks.PLUGIN_UID: plugin_uid,
            marks.ROLE: "network",
            PORTS: ",".join(map(str, ports)),
        },
    }


def edge_arguments(control_plane: str) -> dict[str, Any]:
    """Describe the network of all relays, who do not see each other there."""
    return {
        "name": edge_name(control_plane),
        "driver": "bridge",
        "check_duplicate": True,
        "options": {"com.docker.network.bridge.enable_icc": "false"},
        "labels": {marks.CONTROL_PLANE: control_plane, marks.ROLE: "edge"},
    }


def relay_body(
    control_plane: str,
    plugin_uid: str,
    ports: tuple[int, ...],
    image: Image,
    shown: Mapping[str, str],
) -> dict[str, Any]:
    """Return the request for a relay, published on the host's loopback only.

    One that only lets a plugin out is in that plugin's network and in no other.

    Args:
        control_plane: whose it is.
        plugin_uid: the plugin that it serves.
        ports: the plugin's ports, and ``OUT``.
        image: what it is made from.
        shown: folders of the engine's host, by where it sees them: in ``DOORS`` its own egress door, with
            ``OUT``; in ``ROUTES`` the file that says to whom it hands connections on, where it takes any.
    """
    names = [f"{port}/tcp" for port in ports if port != OUT]
    own = network_name(control_plane, plugin_uid)
    return {
        **({} if names else {"NetworkingConfig": {"EndpointsConfig": {own: {"Aliases": [PROXY]}}}}),
        "Image": image.id,
        "User": f"{RELAY_USER}:{RELAY_USER}",
        "Entrypoint": [*image.before, "-c", RELAY, *map(str, ports)],
        "Cmd": [],
        "Env": [f"{name}={value}" for name, value in image.env],
        "Labels": {
            **relay_labels(control_plane, plugin_uid),
            PORTS: ",".join(map(str, ports)),
            **({ROUTED: "yes"} if ROUTES in shown else {}),
        },
        "Healthcheck": {"Test": ["NONE"]},
        "ExposedPorts": {name: {} for name in names},
        "HostConfig": {
            "NetworkMode": edge_name(control_plane) if names else own,
            "Mounts": [_shown(folder, place) for place, folder in shown.items()],
            "PortBindings": {name: [{"HostIp": "127.0.0.1", "HostPort": ""}] for name in names},
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges", f"seccomp={document(PROFILES['python'])}"],
            **NO_NAMES,
            "Sysctls": {"net.ipv4.ip_forward": "0"},
            "IpcMode": "private",
            "Init": True,
            "Memory": _MEMORY,
            "MemorySwap": _MEMORY,
            "PidsLimit": 512,
            "RestartPolicy": {"Name": "unless-stopped"},
            "LogConfig": {"Type": "none", "Config": {}},
        },
    }


def _shown(folder: str, place: str) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": folder,
        "Target": place,
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
    }


def ports_of(labels: Mapping[str, str]) -> tuple[int, ...]:
    """Return the ports that a relay, or its network, was made for; ``OUT`` among them."""
    return tuple(int(word) for word in labels.get(PORTS, "").split(",") if word.isdecimal())


def endpoints_of(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return where a listed relay can be reached: ``8080 at 127.0.0.1:49153`` for each port."""
    found = {
        (int(port["PrivatePort"]), f"{port['IP']}:{port['PublicPort']}")
        for port in entry.get("Ports") or ()
        if port.get("PublicPort")
    }
    return tuple(f"{inner} at {outer}" for inner, outer in sorted(found))


def cut_off(entry: Mapping[str, Any], networks: Collection[str]) -> bool:
    """Whether a listed container runs and is not in a network of ours that it was made for.

    An engine that starts without its list of networks leaves containers as they are: nobody reaches them, nor
    they anybody.

    Args:
        entry: of ``GET /containers/json``.
        networks: ids and names of those of this control plane that the engine knows.
    """
    joined = (entry.get("NetworkSettings") or {}).get("Networks") or {}
    ours = f"crucible-{entry['Labels'].get(marks.CONTROL_PLANE)}-"
    wanted = {name for name in (*joined, entry["HostConfig"]["NetworkMode"]) if name.startswith(ours)}
    return entry["State"] == "running" and any(
        joined.get(name, {}).get("NetworkID") not in networks for name in wanted
    )
