"""From a manifest to the doors an instance has, and how it is told of them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crucible.core import egress
from crucible.core.bus import is_on_bus
from crucible.model.door import Door, authority_path, socket_path

if TYPE_CHECKING:
    from crucible.model.manifest import PluginSpec
    from crucible.model.workload import Workload

PROXY_PORT: Final = 3128
"""Where an instance finds the egress proxy on the host that its runtime names to it."""
BUS_PORT: Final = 3129
"""Where a pod finds the broker, at the host that it knows by the door's name."""
CALLERS_PORT: Final = 3130
"""Where people outside of a cluster find the broker, on its pod's loopback."""
_NO_PROXY: Final = "localhost,127.0.0.1,::1"


def doors_of(spec: PluginSpec) -> tuple[Door, ...]:
    """Return the doors an instance has: those behind which its manifest asks for something."""
    asked = {Door.BUS: is_on_bus(spec), Door.EGRESS: bool(egress.grant_of(spec))}
    return tuple(door for door, needed in asked.items() if needed)


def environment(workload: Workload, proxy: str) -> tuple[tuple[str, str], ...]:
    """Return the variables that tell a plugin, and the libraries it uses, where its doors are.

    Args:
        workload: the instance's.
        proxy: the host that the proxy's port is at, from inside.
    """
    bus = _bus(workload) if Door.BUS in workload.doors else ()
    if Door.EGRESS not in workload.doors:
        return bus
    return (*bus, ("CRUCIBLE_EGRESS", socket_path(Door.EGRESS)), *proxy_variables(proxy))


def bus_variables(broker: str, authority: str) -> tuple[tuple[str, str], ...]:
    """Return the variables that tell a plugin where a broker is that speaks TLS.

    Args:
        broker: its host from inside, which is also the name in its certificate.
        authority: path, inside, of the certificate of who vouches for it.
    """
    return (("CRUCIBLE_BUS", f"tls://{broker}:{BUS_PORT}"), ("CRUCIBLE_BUS_CA", authority))


def _bus(workload: Workload) -> tuple[tuple[str, str], ...]:
    path = socket_path(Door.BUS)
    if not workload.sealed:
        return (("CRUCIBLE_BUS", path),)
    return (("CRUCIBLE_BUS", f"tls://{path}"), ("CRUCIBLE_BUS_CA", authority_path()))


def proxy_variables(proxy: str) -> tuple[tuple[str, str], ...]:
    """Return the variables that libraries find a proxy by, in both spellings, for its host from inside."""
    http, socks = f"http://{proxy}:{PROXY_PORT}", f"socks5h://{proxy}:{PROXY_PORT}"
    named = (("HTTP_PROXY", http), ("HTTPS_PROXY", http), ("ALL_PROXY", socks), ("NO_PROXY", _NO_PROXY))
    return (*named, *((name.lower(), value) for name, value in named))
