"""Functions of the Kubernetes CEL libraries, for the rules of definitions.

Strings, lists, sets and regular expressions; URLs, IP addresses, CIDRs and quantities. An address and a
quantity are kept as text in one canonical form, so that ``==`` compares what they stand for; a URL stays as
it was.
"""

from __future__ import annotations

import re
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from cel import stdlib

from .celformat import format_text

if TYPE_CHECKING:
    from collections.abc import Callable

_QUANTITY: Final = re.compile(
    r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2}|)"
)
_UNITS: Final = {
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{unit: Decimal(1000) ** -power for power, unit in enumerate("mun", 1)},
    "": Decimal(1),
}
_WHOLE: Final = re.compile(r"-?[0-9]+")
_INT64: Final = 2**63


def _index(value: Any, wanted: Any, *rest: int) -> int:  # noqa: ANN401 - text or a list of anything
    if isinstance(value, list):
        return value.index(wanted) if wanted in value else -1
    return int(stdlib.index_of(value, wanted, *rest))


def _last_index(value: Any, wanted: Any, *rest: int) -> int:  # noqa: ANN401
    if isinstance(value, list):
        return len(value) - 1 - value[::-1].index(wanted) if wanted in value else -1
    return int(stdlib.last_index_of(value, wanted, *rest))


def _is_sorted(items: list[Any]) -> bool:
    return all(first <= second for first, second in pairwise(items))


def _find(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    return found.group() if found else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = [match.group() for match in re.finditer(pattern, text)]
    return found if limit < 0 else found[:limit]


def _is(read: Callable[[str], object]) -> Callable[[str], bool]:
    """Whether a text can be read so."""

    def can_be_read(text: str) -> bool:
        try:
            read(text)
        except ValueError:
            return False
        return True

    return can_be_read


def _url(text: str) -> str:
    parts = urlsplit(text)
    if not ((parts.scheme and (parts.netloc or parts.path)) or text.startswith("/")):
        raise ValueError(f"URL parse error during conversion from string: {text!r}")
    if any(char.isspace() or not char.isprintable() for char in text) or (parts.port or 0) < 0:
        raise ValueError(f"URL parse error during conversion from string: {text!r}")
    return text


def _query(url: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pair in filter(None, urlsplit(url).query.split("&")):
        name, _, value = pair.partition("=")
        found.setdefault(name, []).append(value)
    return found


def _hostname(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2].removesuffix(_port_part(url)).strip("[]")


def _port_part(url: str) -> str:
    found = re.search(r":[0-9]*\Z", urlsplit(url).netloc)
    return found.group() if found else ""


def _address(text: str) -> IPv4Address | IPv6Address:
    found = ip_address(text)
    if isinstance(found, IPv6Address) and (found.ipv4_mapped or found.scope_id):
        raise ValueError(f"IP Address {text!r}: IPv4-mapped addresses and zones are not allowed")
    return found


def _ip(text: str) -> str:
    """An address; of a CIDR its own one."""
    return str(_address(text.partition("/")[0]))


def _cidr(text: str) -> str:
    if "/" not in text or not text.rpartition("/")[2].isdigit():
        raise ValueError(f"network address parse error during conversion from string: {text!r}")
    _address(text.partition("/")[0])
    return ip_interface(text).with_prefixlen


def _contains_ip(cidr: str, address: str) -> bool:
    return _address(address) in ip_network(cidr, strict=False)


def _contains_cidr(cidr: str, other: str) -> bool:
    outer, inner = ip_network(cidr, strict=False), ip_network(_cidr(other), strict=False)
    return (
        outer.version == inner.version
        and inner.network_address in outer
        and inner.prefixlen >= outer.prefixlen
    )


def _quantity(text: str) -> str:
    found = _QUANTITY.fullmatch(text)
    if not found:
        raise ValueError(f"quantity parse error during conversion from string: {text!r}")
    sign, number, unit = found.groups()
    factor = _UNITS[unit] if unit in _UNITS else Decimal(10) ** int(unit[1:])
    return _written(Decimal(sign + number) * factor)


def _written(number: Decimal) -> str:
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in {"", "-0", "-"} else text


def _whole(text: str) -> int:
    if not _is_whole(text):
        raise ValueError(f"{text} is not a whole number of 64 bits")
    return int(text)


def _is_whole(text: str) -> bool:
    return bool(_WHOLE.fullmatch(text)) and -_INT64 <= int(text) < _INT64


def _compare(one: str, other: str) -> int:
    first, second = Decimal(one), Decimal(other)
    return (first > second) - (first < second)


FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "bool": stdlib.bool_,
    "charAt": stdlib.char_at,
    "substring": stdlib.substring,
    "replace": stdlib.replace,
    "split": stdlib.split,
    "join": stdlib.join,
    "trim": stdlib.trim,
    "format": format_text,
    "lowerAscii": stdlib.lower_ascii,
    "upperAscii": stdlib.upper_ascii,
    "indexOf": _index,
    "lastIndexOf": _last_index,
    "find": _find,
    "findAll": _find_all,
    "sum": sum,
    "min": min,
    "max": max,
    "isSorted": _is_sorted,
    "sets.contains": stdlib.sets_contains,
    "sets.equivalent": stdlib.sets_equivalent,
    "sets.intersects": stdlib.sets_intersects,
    "isURL": _is(_url),
    "url": _url,
    "getScheme": lambda url: urlsplit(url).scheme,
    "getHost": lambda url: urlsplit(url).netloc.rpartition("@")[2],
    "getHostname": _hostname,
    "getPort": lambda url: _port_part(url)[1:],
    "getEscapedPath": lambda url: urlsplit(url).path,
    "getQuery": _query,
    "isIP": _is(_address),
    "ip": _ip,
    "ip.isCanonical": lambda text: _ip(text) == text,
    "family": lambda address: ip_address(address).version,
    "isUnspecified": lambda address: ip_address(address).is_unspecified,
    "isLoopback": lambda address: ip_address(address).is_loopback,
    "isLinkLocalMulticast": lambda address: _link_local_multicast(ip_address(address)),
    "isLinkLocalUnicast": lambda address: ip_address(address).is_link_local,
    "isGlobalUnicast": lambda address: _global_unicast(ip_address(address)),
    "isCIDR": _is(_cidr),
    "cidr": _cidr,
    "containsIP": _contains_ip,
    "containsCIDR": _contains_cidr,
    "masked": lambda cidr: ip_network(cidr, strict=False).with_prefixlen,
    "prefixLength": lambda cidr: ip_network(cidr, strict=False).prefixlen,
    "isQuantity": _is(_quantity),
    "quantity": _quantity,
    "isInteger": _is_whole,
    "asInteger": _whole,
    "asApproximateFloat": float,
    "sign": lambda quantity: _compare(quantity, "0"),
    "add": lambda one, other: _written(Decimal(one) + Decimal(other)),
    "sub": lambda one, other: _written(Decimal(one) - Decimal(other)),
    "compareTo": _compare,
    "isLessThan": lambda one, other: _compare(one, other) < 0,
    "isGreaterThan": lambda one, other: _compare(one, other) > 0,
}
"""By name; a dotted one belongs to a namespace."""


def _link_local_multicast(address: IPv4Address | IPv6Address) -> bool:
    network = ip_network("224.0.0.0/24" if address.version == 4 else "ff02::/16")  # noqa: PLR2004 - IPv4
    return address in network


def _global_unicast(address: IPv4Address | IPv6Address) -> bool:
    """As Go has it: private ones are global too."""
    special = address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    return not special and str(address) != "255.255.255.255"
