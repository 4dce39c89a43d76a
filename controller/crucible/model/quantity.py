"""Units as Kubernetes writes them: ``64Mi`` of memory, ``500m`` of a core, ``1m30s`` of time."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_SUFFIXES: Final = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip
_UNITS: Final = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}

BYTES_PATTERN: Final = r"^[0-9]{1,15}(k|M|G|T|Ki|Mi|Gi|Ti)?$"
CPU_PATTERN: Final = r"^([0-9]{1,6}m|[0-9]{1,3}(\.[0-9]{1,3})?)$"
DURATION_PATTERN: Final = r"^([0-9]{1,6}(ms|s|m|h)){1,4}$"
SHARE_PATTERN: Final = r"^(0|[1-9][0-9]{0,2}|(0|[1-9][0-9]?|100)%)$"


def parse_share(text: str | int) -> str:
    """Return a number, or a number of hundredths with a percent sign, as it was written.

    Raises:
        ValueError: neither ``2`` nor ``25%``, or more than all.
    """
    if re.fullmatch(SHARE_PATTERN, _text(text)) is None:
        raise ValueError(
            f"{text!r} is neither a number nor a part: write 2, or 25% of the replicas, 100% at most"
        )
    return _text(text)


def share_of(share: str, total: int, *, up: bool) -> int:
    """Return how many a share comes to; parts are rounded up or down."""
    if not share.endswith("%"):
        return int(share)
    hundredths = int(share[:-1]) * total
    return -(-hundredths // 100) if up else hundredths // 100


def parse_bytes(text: str | int) -> int:
    """Return bytes.

    Raises:
        ValueError: not a whole number with one of the suffixes k M G T Ki Mi Gi Ti.
    """
    match = re.fullmatch(r"([0-9]{1,15})(k|M|G|T|Ki|Mi|Gi|Ti)?", _text(text))
    if match is None:
        raise ValueError(f"{text!r} is not an amount of bytes: write a number like 64Mi, 500k or 1048576")
    return int(match[1]) * _SUFFIXES[match[2] or ""]


def parse_cpu(text: str | float) -> int:
    """Return thousandths of a core.

    Raises:
        ValueError: not ``250m`` nor ``0.25``.
    """
    if re.fullmatch(CPU_PATTERN, _text(text)) is None:
        raise ValueError(f"{text!r} is not an amount of cpu: write 500m for half a core, or 0.5")
    text = _text(text)
    return int(text[:-1]) if text.endswith("m") else int(Decimal(text) * 1000)


def parse_duration(text: str) -> float:
    """Return seconds.

    Raises:
        ValueError: not numbers with the units ms, s, m or h.
    """
    if not isinstance(text, str) or re.fullmatch(DURATION_PATTERN, text) is None:
        raise ValueError(f"{text!r} is not a duration: write 500ms, 10s, 5m or 1h30m")
    parts = re.findall(r"([0-9]+)(ms|s|m|h)", text)
    return float(sum(Decimal(number) * _UNITS[unit] for number, unit in parts))


def format_bytes(amount: int) -> str:
    """Return the shortest exact spelling: ``64Mi`` for 67108864."""
    for suffix in ("Ti", "Gi", "Mi", "Ki"):
        if amount and amount % _SUFFIXES[suffix] == 0:
            return f"{amount // _SUFFIXES[suffix]}{suffix}"
    return str(amount)


def format_cpu(thousandths: int) -> str:
    """Return ``2`` for two cores and ``500m`` for half of one."""
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def format_duration(seconds: float) -> str:
    """Return the spelling that :func:`parse_duration` reads back, to the millisecond."""
    milliseconds = round(seconds * 1000)
    parts: list[str] = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        number, milliseconds = divmod(milliseconds, size)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"


def _text(value: object) -> str:
    """Return what a person wrote; a bool, which YAML makes of ``yes``, is no number."""
    return "" if isinstance(value, bool) else str(value)
