"""Other Plugins of the same namespace, as far as one that needs them, or is needed by them, has to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another Plugin.

    Attributes:
        name: its own.
        version: ``spec.version``.
        ready: its condition Ready is true, of the manifest it has now.
        message: why it is not.
        needs: the names of those it cannot do without.
        deleting: somebody asked for its deletion.
        instances: how many of its instances may run.
    """

    name: str
    version: str
    ready: bool
    message: str = ""
    needs: tuple[str, ...] = ()
    deleting: bool = False
    instances: int = 0


@dataclass(frozen=True, slots=True)
class Around:
    """The Plugins around one.

    Attributes:
        needed: what it needs, and what that needs in turn, by name, as far as they are there.
        needed_by: those that need it.
    """

    needed: Mapping[str, Neighbour] = field(default_factory=dict)
    needed_by: tuple[Neighbour, ...] = ()
