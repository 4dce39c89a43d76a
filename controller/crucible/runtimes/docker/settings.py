"""What a person may choose about the Docker runtime."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crucible import __version__
from crucible.runtimes.doors import nobody

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.model.volume import HostVolume


@dataclass(frozen=True, slots=True)
class DockerSettings:
    """Settings of the Docker runtime.

    Attributes:
        state_dir: private directory for what is shown to containers; made when absent.
        control_plane: short id of this control plane (letters, digits, dashes): the mark of ownership.
        url: of the engine, as ``DOCKER_HOST`` writes it; None asks the environment, then the usual socket.
        images: repository of the types' images, to which ``/<type>`` is added.
        tag: of the types' images.
        uid_base: first user and group id that any control plane of this host gives to plugins.
        uid_count: how many ids one control plane has; where its own begin follows from its id.
        parallel: how many requests the engine gets at once.
        patience: seconds the engine has to answer a request.
        heartbeat: seconds between two looks whether it still does.
        stale: seconds without a word of progress after which an image's registry counts as hanging.
        retry: seconds until a pull that failed is tried again, twice as long each time, five minutes at most.
        log_files: how many files of output are kept for each instance.
        log_bytes: how large each of those may become.
        volumes: folders that plugins may be granted.
        bus_authority: returns the certificate of who vouches for the broker to plugins that speak TLS to it.
        memory: a file system in memory, where what is in Secrets is kept while it is shown to containers.
    """

    state_dir: Path
    control_plane: str
    url: str | None = None
    images: str = "crucible"
    tag: str = __version__
    uid_base: int = 1_900_000_000
    uid_count: int = 4096
    parallel: int = 8
    patience: int = 30
    heartbeat: float = 5.0
    stale: float = 45.0
    retry: float = 10.0
    log_files: int = 3
    log_bytes: int = 1 << 20
    volumes: tuple[HostVolume, ...] = ()
    bus_authority: Callable[[], str] = nobody
    memory: Path = Path("/dev/shm")  # noqa: S108 - a private folder is made in it

    def image_of(self, plugin_type: str) -> str:
        """Return the name of a type's own image."""
        return f"{self.images}/{plugin_type}:{self.tag}"

    @property
    def names(self) -> Path:
        """The file that containers without a network are shown as ``/etc/hosts``."""
        return self.state_dir / "hosts"

    @property
    def first_uid(self) -> int:
        """The first id of this control plane: two on one host do not give out the same ones."""
        digest = hashlib.sha256(f"docker {self.control_plane}".encode()).digest()
        return self.uid_base + int.from_bytes(digest[:8], "big") % _UID_SLOTS * self.uid_count


_UID_SLOTS = 30_000
