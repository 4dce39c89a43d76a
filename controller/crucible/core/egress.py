"""Whether a plugin may connect somewhere: the egress proxy's judgement. Pure.

A name is judged before it is resolved, so that no name outside the list is ever asked for; its addresses are
judged after that, and the proxy dials none but those that passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any, Final

from crucible.model.decision import Event
from crucible.model.egress import ANY_PORT, Rule, parse_rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from crucible.model.egress import Network
    from crucible.model.manifest import PluginSpec

Address = IPv4Address | IPv6Address

_SPECIAL: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("a metadata", ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192")),
    ("a metadata", ("fd00:ec2::254", "fd20:ce::254")),
    ("an unspecified", ("0.0.0.0/8", "::/128")),
    ("a loopback", ("127.0.0.0/8", "::1/128")),
    ("a link-local", ("169.254.0.0/16", "fe80::/10")),
    ("a private", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")),
    ("a carrier's private", ("100.64.0.0/10",)),
    ("a multicast", ("224.0.0.0/4", "ff00::/8")),
    ("a reserved", ("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24")),
    ("a reserved", ("203.0.113.0/24", "240.0.0.0/4", "::/8", "64:ff9b:1::/48", "100::/8", "200::/7")),
    ("a reserved", ("2001::/23", "2001:db8::/32", "2002::/16", "3ffe::/16", "3fff::/20", "400::/6")),
    ("a reserved", ("800::/5", "1000::/4", "4000::/2", "8000::/1")),
)
_BLOCKS: Final = tuple((name, ip_network(words)) for name, many in _SPECIAL for words in many)
_NAT64: Final = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a plugin may do through the egress proxy.

    Attributes:
        rules: where it may connect.
        rate: bytes a second, both directions together; None: any.
    """

    rules: tuple[Rule, ...] = ()
    rate: int | None = None


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a connection was refused, and the line in ``capabilities.network.connect`` that would allow it."""

    reason: str
    grant: str = ""


def grant_of(spec: PluginSpec) -> dict[str, Any]:
    """Return what a manifest grants, as the proxy is told it; empty: nothing."""
    connect = spec.capabilities.network.connect
    if not connect:
        return {}
    return {"connect": list(connect), "rate": spec.resources.network}


def read_grant(words: Mapping[str, Any]) -> Grant:
    """Read what :func:`grant_of` wrote.

    Raises:
        ValueError: it is no such thing.
    """
    return Grant(tuple(parse_rule(text) for text in words.get("connect", ())), words.get("rate"))


def denial_event(words: Mapping[str, Any]) -> Event:
    """Return the event for what the proxy tells of a refusal."""
    message, grant = str(words.get("denied", "")), words.get("grant")
    advice = f"; to allow it, add {grant!r} to spec.capabilities.network.connect" if grant else ""
    return Event("Warning", "EgressDenied", f"{message}{advice}")


def judge_name(rules: Iterable[Rule], name: str, port: int) -> Denial | None:
    """Return why a host may not be connected to by name; None where a rule allows it."""
    if any(_port_fits(rule, port) and _name_fits(rule, name) for rule in rules):
        return None
    return Denial(f"{name}:{port} is not in the plugin's list", f"{name}:{port}")


def judge_addresses(
    rules: Iterable[Rule],
    addresses: Iterable[Address],
    port: int,
    *,
    name: str = "",
    own: Callable[[Address], bool] = lambda _: False,
) -> tuple[Address, ...] | Denial:
    """Return the addresses that may be dialled, in their order; why there are none where there are none.

    Args:
        rules: the plugin's list.
        addresses: what a name that passed :func:`judge_name` was resolved to, or the address asked for.
        port: the port.
        name: that name; empty where an address was asked for.
        own: tells whether an address is the proxy's own host's.
    """
    rules, plain = tuple(rules), tuple(dict.fromkeys(plainly(address) for address in addresses))
    own_ones = {address for address in plain if own(_inside(address))}
    allowed = tuple(
        address
        for address in plain
        if _may_dial(rules, address, port, named=bool(name), own=address in own_ones)
    )
    if allowed:
        return allowed
    if not plain:
        return Denial(f"{name} has no address")
    kind = special(plain[0]) or ("this host's own" if plain[0] in own_ones else "")
    what = f"{plain[0]} is {kind} address" if kind else f"{plain[0]}:{port} is not in the plugin's list"
    where = f"{name}:{port} leads to {plain[0]}, and " if name else ""
    return Denial(f"{where}{what}", f"{literal(plain[0])}:{port}")


def plainly(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, where it stands for one that it leads to."""
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        if mapped is not None:
            return mapped
        if address.scope_id is not None:
            return IPv6Address(int(address))
    return address


def special(address: Address) -> str:
    """Return what kind of address it is that no name may lead to, with its article; empty: a public one."""
    inside = _inside(address)
    return next((name for name, network in _BLOCKS if inside in network), "")


def literal(address: Address) -> str:
    """Return an address as a rule writes it."""
    return f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004 - of the protocol


def _inside(address: Address) -> Address:
    """Return the address that is dialled in the end by whoever translates between the protocols."""
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address


def _may_dial(rules: tuple[Rule, ...], address: Address, port: int, *, named: bool, own: bool) -> bool:
    kind = special(address)
    for rule in rules:
        if not _port_fits(rule, port):
            continue
        if rule.network is not None:
            if address not in rule.network:
                continue
            if _speaks_of_hosts_own(rule.network) if own else not kind or _is_special(rule.network):
                return True
        elif not kind and not own and (named or rule.host == "*"):
            return True
    return False


def _is_special(network: Network) -> bool:
    """Tell whether a network is special as a whole; a wider one speaks of the public addresses in it."""
    return any(
        network.version == block.version
        and block.prefixlen <= network.prefixlen
        and network.network_address in block
        for _, block in _BLOCKS
    )


def _speaks_of_hosts_own(network: Network) -> bool:
    """Tell whether a network is one address, or loopback: a wider one speaks of others in it."""
    return network.num_addresses == 1 or network.is_loopback


def _name_fits(rule: Rule, name: str) -> bool:
    if rule.network is not None:
        return False
    if rule.host in {"*", name}:
        return True
    return rule.host.startswith("*.") and name.endswith(rule.host[1:])


def _port_fits(rule: Rule, port: int) -> bool:
    return rule.port in {ANY_PORT, port}
