"""A plugin's instances, as the API shows them: pods with names that say which they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crucible.cli.objects import core
from crucible.model import names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crucible.cli.api import Api


@dataclass(frozen=True, slots=True, order=True)
class InstanceName:
    """``plugin-ordinal-attempt``, read."""

    plugin: str
    ordinal: int
    attempt: int

    def __str__(self) -> str:
        """Return the name."""
        return f"{self.plugin}-{self.ordinal}-{self.attempt}"


def instances(api: Api, namespace: str, plugin: str) -> tuple[InstanceName, ...]:
    """Return the instances there are of a plugin, ended ones included, oldest attempt first."""
    selector = {"labelSelector": f"{names.GROUP}/plugin={plugin}"}
    found = api.get(core(namespace, "pods"), selector).get("items", [])
    return tuple(sorted(name for item in found if (name := read_name(item["metadata"]["name"]))))


def read_name(text: str) -> InstanceName | None:
    """Read an instance's name; None when it is none."""
    match text.rsplit("-", 2):
        case [plugin, ordinal, attempt] if plugin and ordinal.isdecimal() and attempt.isdecimal():
            return InstanceName(plugin, int(ordinal), int(attempt))
        case _:
            return None


def newest(found: Sequence[InstanceName], *, before: bool = False) -> tuple[InstanceName, ...]:
    """Return the newest attempt of each replica; or, with ``before``, the one before that."""
    by_ordinal: dict[int, list[InstanceName]] = {}
    for name in sorted(found):
        by_ordinal.setdefault(name.ordinal, []).append(name)
    place = 2 if before else 1
    return tuple(names[-place] for names in by_ordinal.values() if len(names) >= place)


def prefixed(name: InstanceName, among: Sequence[InstanceName]) -> str:
    """Return what to write before each line: the instance's name where there are several."""
    return f"[{name}] " if len(among) > 1 else ""
