"""What a plugin was started with, written down for the commands that are run beside it later."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from crucible.model.secret import SecretVariable

if TYPE_CHECKING:
    from pathlib import Path

_FILE: Final = "surroundings.json"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every process of an instance begins with.

    Attributes:
        environment: its variables.
        rlimits: resource, soft limit, hard limit.
        secrets: variables whose values are in Secrets, and are not written down.
        groups: user groups beside its own.
    """

    environment: tuple[tuple[str, str], ...]
    rlimits: tuple[tuple[int, int, int], ...]
    secrets: tuple[SecretVariable, ...] = ()
    groups: tuple[int, ...] = ()


def save(surroundings: Surroundings, directory: Path) -> None:
    """Write it into an instance's directory."""
    (directory / _FILE).write_text(json.dumps(asdict(surroundings), separators=(",", ":")))


def load(directory: Path) -> Surroundings | None:
    """Read it; None where an earlier release started the instance."""
    try:
        found = json.loads((directory / _FILE).read_text())
    except FileNotFoundError:
        return None
    return Surroundings(
        tuple((name, value) for name, value in found["environment"]),
        tuple((which, soft, hard) for which, soft, hard in found["rlimits"]),
        tuple(SecretVariable(**each) for each in found.get("secrets", ())),
        tuple(found.get("groups", ())),
    )
