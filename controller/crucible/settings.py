"""Where things are on this machine: the folder of a local control plane, and what lies in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Places:
    """The state folder of one local control plane.

    Attributes:
        root: everything lies below it; only its owner may look inside.
    """

    root: Path

    @property
    def control(self) -> Path:
        """The API server's database, keys and kubeconfig."""
        return self.root / "control"

    @property
    def kubeconfig(self) -> Path:
        """How clients reach the API server."""
        return self.control / "kubeconfig"

    @property
    def sources(self) -> Path:
        """Snapshots of plugins' files."""
        return self.root / "sources"

    @property
    def bus(self) -> Path:
        """The broker's private folder: its socket and log, and plugins' stores."""
        return self.root / "bus"

    @property
    def bus_authority(self) -> Path:
        """Who vouches for the broker to plugins that speak TLS to it."""
        return self.root / "bus-authority"

    @property
    def egress(self) -> Path:
        """The egress proxy's private folder: its socket and log."""
        return self.root / "egress"

    @property
    def backbone(self) -> Path:
        """The backbone's authority, and its server's private folder."""
        return self.root / "backbone"

    @property
    def host(self) -> Path:
        """The host application's door to the bus lies in here."""
        return self.root / "host"

    @property
    def process(self) -> Path:
        """The process runtime's instances and root file systems."""
        return self.root / "process"

    @property
    def docker(self) -> Path:
        """What the Docker runtime shows to containers."""
        return self.root / "docker"


def default_root(environment: Mapping[str, str] = os.environ) -> Path:
    """Return ``$CRUCIBLE_STATE``, or the usual place: of the system for root, of the user otherwise."""
    if environment.get("CRUCIBLE_STATE"):
        return Path(environment["CRUCIBLE_STATE"])
    if os.geteuid() == 0:
        return Path("/var/lib/crucible")
    state = environment.get("XDG_STATE_HOME") or Path(environment.get("HOME", "/")) / ".local" / "state"
    return Path(state) / "crucible"


def default_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """Return ``$CRUCIBLE_CACHE``, or the usual place for what can be made again."""
    if environment.get("CRUCIBLE_CACHE"):
        return Path(environment["CRUCIBLE_CACHE"])
    if os.geteuid() == 0:
        return Path("/var/cache/crucible")
    cache = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "/")) / ".cache"
    return Path(cache) / "crucible"
