"""String formats a schema may name. A name that is not known is not checked, as on a real server."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import uuid
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z")
_DURATION = re.compile(r"-?(\d+(\.\d*)?(ns|us|µs|ms|s|m|h|d|w))+\Z|0\Z")
_HOST_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_HOST_LABEL}(\.{_HOST_LABEL})*\Z")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\Z")


def fits_format(name: str, value: str) -> bool:
    """True if ``value`` is of the named format, or the format is not one that is checked."""
    check = _CHECKS.get(name)
    if check is None:
        return True
    try:
        return check(value)
    except ValueError:
        return False


def _date_time(value: str) -> bool:
    if not _DATE_TIME.match(value):
        return False
    datetime.fromisoformat(value.upper().replace(" ", "T"))
    return True


def _date(value: str) -> bool:
    return bool(datetime.strptime(value, "%Y-%m-%d").date()) and len(value) == len("2000-01-01")  # noqa: DTZ007 - a day has no zone


def _bytes(value: str) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error:
        return False
    return True


def _uri(value: str) -> bool:
    return bool(urlsplit(value).scheme)


_CHECKS: Mapping[str, Callable[[str], bool]] = MappingProxyType(
    {
        "date-time": _date_time,
        "datetime": _date_time,
        "date": _date,
        "duration": lambda value: bool(_DURATION.match(value)),
        "byte": _bytes,
        "uri": _uri,
        "hostname": lambda value: bool(_HOST.match(value)),
        "email": lambda value: bool(_EMAIL.match(value)),
        "ipv4": lambda value: bool(ipaddress.IPv4Address(value)),
        "ipv6": lambda value: bool(ipaddress.IPv6Address(value)),
        "cidr": lambda value: bool(ipaddress.ip_network(value, strict=False)),
        "uuid": lambda value: bool(uuid.UUID(value)),
    }
)
