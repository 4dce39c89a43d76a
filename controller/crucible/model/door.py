"""Doors: the Unix sockets through which an instance reaches programs of ours outside its sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DOORS: Final = "/run/crucible"
"""Where an instance finds its doors, as ``NAME.sock``. It can open them, and write nothing there."""


AUTHORITY: Final = "bus.crt"
"""Beside the doors, where the one to the bus speaks TLS: the certificate of who vouches for the broker."""
BROKER: Final = "crucible-bus"
"""What the broker behind a Unix socket is called in its certificate."""


class Door(StrEnum):
    """What is behind a door."""

    EGRESS = "egress"
    BUS = "bus"


@dataclass(frozen=True, slots=True)
class Doorway:
    """One door of one instance. Whoever comes through it is that instance, because nobody else can see it.

    Attributes:
        door: what is behind it.
        namespace: of the Plugin.
        plugin: the Plugin's name.
        plugin_uid: the Plugin's uid.
        place: the instance's slot, or another place that stands for all of the plugin's instances.
        peer: user id, on this host, of whoever may come through; None where the kernel cannot tell.
        tls: what is said there is encrypted.
    """

    door: Door
    namespace: str
    plugin: str
    plugin_uid: str
    place: str
    peer: int | None = None
    tls: bool = False

    @property
    def key(self) -> str:
        """What it is known by between the controller and a companion."""
        return f"{self.plugin_uid}/{self.place}/{self.door}"


def socket_name(door: Door) -> str:
    """Return the name of a door's socket in its directory."""
    return f"{door}.sock"


def socket_path(door: Door) -> str:
    """Return where an instance finds a door."""
    return f"{DOORS}/{socket_name(door)}"


def authority_path() -> str:
    """Return where an instance finds whom to believe behind the door to the bus."""
    return f"{DOORS}/{AUTHORITY}"
