"""Addresses of stored objects and the records kept of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from .jsontypes import Object

EventType = Literal["ADDED", "MODIFIED", "DELETED"]


class Key(NamedTuple):
    """Where an object lives: its collection (``plugins.crucible.dev``), namespace or "", and name."""

    collection: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Record:
    """One version of one object, decoded and as the bytes that are sent.

    ``revision`` is the resourceVersion that wrote it, and is inside ``raw`` too.
    """

    key: Key
    revision: int
    raw: bytes
    body: Object


@dataclass(frozen=True, slots=True)
class Event:
    """One committed change: what an object became, and what it was before.

    For ``DELETED`` the record is the last version, carrying the revision of its deletion.
    """

    type: EventType
    revision: int
    key: Key
    raw: bytes
    previous: bytes | None
