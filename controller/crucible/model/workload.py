"""What a runtime is asked to run: a manifest with every default, unit and reference resolved."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crucible.model.door import Door
    from crucible.model.manifest import PreStop
    from crucible.model.probe import Probe
    from crucible.model.secret import SecretVariable
    from crucible.model.volume import Mount


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds for one instance.

    Attributes:
        cpu: thousandths of a core.
        memory: bytes, swap included.
        pids: processes and threads.
        disk: bytes of scratch space.
        open_files: file descriptors of each process.
    """

    cpu: int
    memory: int
    pids: int
    disk: int
    open_files: int


@dataclass(frozen=True)  # without slots, for its digest is kept
class Workload:
    """One instance's worth of work, the same for every runtime.

    Attributes:
        namespace: of the Plugin.
        plugin: the Plugin's name.
        plugin_uid: the Plugin's uid; owns everything made for it.
        type: ``python``, ``javascript``, ``binary``, …
        entrypoint: the program, relative to the source, then its arguments.
        env: variables, in the manifest's order.
        config: the plugin's configuration, as JSON text.
        source: digest of the source snapshot (``sha256:…``).
        limits: what it may use.
        isolation: value of ``sandbox.isolation``.
        grace: seconds between SIGTERM and SIGKILL.
        restart: changes when a person asks for a restart.
        image: the image to run, by digest or image id; empty: the type's own, with the source in it.
        listen: ports others may connect to.
        fuel: instructions one run may execute; None: any number. Types wasm and rune only.
        time: seconds one run may take; None: any. Types wasm and rune only.
        doors: the doors it has; what is granted through one is no part of this, so that it can change.
        secrets: name and version of each Secret it may read. What is in them is never here.
        secret_env: variables whose values are in those.
        probes: those that the runtime asks by itself, by name.
        pre_stop: what it runs by itself before it asks an instance to end.
        mounts: the volumes it sees.
        sealed: its door to the bus speaks TLS.
        delivery: how a changed configuration reaches what runs: ``restart``, ``file``, ``signal`` or ``bus``.
    """

    namespace: str
    plugin: str
    plugin_uid: str
    type: str
    entrypoint: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    config: str
    source: str
    limits: Limits
    isolation: str
    grace: float
    restart: str
    image: str = ""
    listen: tuple[int, ...] = ()
    fuel: int | None = None
    time: float | None = None
    doors: tuple[Door, ...] = field(default=(), repr=False)
    sealed: bool = field(default=False, repr=False)
    secrets: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secret_env: tuple[SecretVariable, ...] = field(default=(), repr=False)
    probes: tuple[tuple[str, Probe], ...] = field(default=(), repr=False)
    pre_stop: PreStop | None = field(default=None, repr=False)
    mounts: tuple[Mount, ...] = field(default=(), repr=False)
    delivery: str = field(default="restart", repr=False)

    @cached_property
    def revision(self) -> str:
        """Sixteen hex digits that change exactly when what would run changes, or has to be replaced.

        A field that a later release added (``repr=False``) counts only where it is not its default, so that
        the release restarts nothing that does not use it.
        """
        later = [
            f"{one.name}={getattr(self, one.name)!r}"
            for one in fields(self)
            if not one.repr and getattr(self, one.name) != one.default
        ]
        fixed = replace(self, config="") if self.live_config else self
        return hashlib.sha256("".join((repr(fixed), *later)).encode()).hexdigest()[:16]

    @property
    def live_config(self) -> bool:
        """A changed configuration is handed to what runs, and replaces nothing."""
        return self.delivery != "restart"


def config_digest(config: str) -> str:
    """Return what tells one configuration from another: sixteen hex digits."""
    return hashlib.sha256(config.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Slot:
    """Which instance of a plugin: the replica it serves, and how manieth of the plugin's it is, from 1."""

    ordinal: int
    attempt: int

    def __str__(self) -> str:
        """``ordinal-attempt``: unique within a plugin, for ever."""
        return f"{self.ordinal}-{self.attempt}"
