"""The manifest: every field a person can write, its unit, its bounds and its default.

These models are the one source: the CRD, ``crucible schema`` and the manifest reference are generated from
them. A field marked :class:`~crucible.model.fields.NotYet` is part of the published manifest, and a value in
it is refused until the release that enforces it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from crucible.model.egress import parse_rule
from crucible.model.enforcement import Control
from crucible.model.fields import (
    RANGE_PATTERN,
    Bytes,
    Cpu,
    Duration,
    ListMap,
    Part,
    Share,
    Version,
    Word,
    rules,
)
from crucible.model.probe import Health
from crucible.model.quantity import share_of
from crucible.model.source import SECRETS_RULE, SPEC_RULES, Source

_MI = 2**20
_VERIFY_IS_FOR_BESIDE = "verify is for strategies rolling and handover: remove it, or write strategy: rolling"
_SURGE_IS_FOR_BESIDE = (
    "maxSurge is for strategies rolling and handover: remove it, or write strategy: rolling"
)
_GAPS_ARE_FOR_ROLLING = "maxUnavailable is for strategy rolling: remove it, or write strategy: rolling"
_NEVER_WITHOUT = "maxSurge: a handover needs room for the new instance beside the old one: write 1 or more"
_NOTHING_MOVES = (
    "maxSurge and maxUnavailable are both 0, so nothing could be replaced: "
    "write maxUnavailable: 1, or remove maxSurge"
)
_NO_ROOM_TO_GROW = "initial is longer than max: write a shorter initial, or a longer max"
_NONE = ("0", "0%")


class PluginType(StrEnum):
    """The six forms a plugin can have."""

    PYTHON = "python"
    JAVASCRIPT = "javascript"
    WASM = "wasm"
    BINARY = "binary"
    RUNE = "rune"
    SERVICE = "service"


class Isolation(StrEnum):
    """What stands between a plugin and the host."""

    PROCESS = "process"
    CONTAINER = "container"
    VM = "vm"
    LANGUAGE = "language"


class Strategy(StrEnum):
    """One step of recovery, tried in the order written."""

    RESTART = "restart"
    RECREATE = "recreate"
    ROLLBACK = "rollback"
    QUARANTINE = "quarantine"


class UpdateStrategy(StrEnum):
    """How a new revision takes over."""

    RECREATE = "recreate"
    ROLLING = "rolling"
    HANDOVER = "handover"


class ConfigDelivery(StrEnum):
    """How a changed configuration reaches a plugin."""

    RESTART = "restart"
    FILE = "file"
    SIGNAL = "signal"
    BUS = "bus"


SecretName = Annotated[str, Field(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", max_length=253)]


class SecretKey(Part):
    """One key of a Secret in the Plugin's own namespace."""

    name: SecretName
    """Of the Secret."""
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]
    """In the Secret's data."""


class EnvVar(Part):
    """One environment variable."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.value) != has(self.secret)", "give exactly one of value and secret")
        )
    )

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
    """A letter or underscore, then letters, digits and underscores."""
    value: Annotated[str | None, Field(max_length=32768)] = None
    """Its value."""
    secret: SecretKey | None = None
    """Takes the value from a Secret, which ``capabilities.secrets`` has to name too."""

    @model_validator(mode="after")
    def _means_something(self) -> EnvVar:
        if (self.value is None) == (self.secret is None):
            raise ValueError("give exactly one of value and secret")
        if self.value is not None and "\0" in self.value:
            raise ValueError("the value contains a NUL byte, which no environment can hold")
        if self.name.startswith(("CRUCIBLE_", "LD_")):
            raise ValueError(
                "names that begin with CRUCIBLE_ or LD_ are kept for the sandbox: choose another"
            )
        return self


class Dependency(Part):
    """Another Plugin of the same namespace that this one needs."""

    name: Annotated[str, Field(min_length=1, max_length=50)]
    """Of the other Plugin."""
    version: Annotated[str, Field(min_length=1, max_length=128, pattern=RANGE_PATTERN)] = "*"
    """The versions that fit, like ``>=2,<3`` or ``^1.4``."""
    optional: bool = False
    """Start without it where it is not to be had."""


def _rule(text: str) -> str:
    parse_rule(text)
    return text


class NetworkCapability(Part):
    """What of the network the plugin may use. Empty: none but its own loopback."""

    connect: Annotated[
        tuple[Annotated[str, Field(max_length=260), AfterValidator(_rule)], ...], Field(max_length=64)
    ] = ()
    """Where it may connect to, through the egress proxy: ``host:port``, ``*.example.com:443``, networks."""
    listen: Annotated[tuple[Annotated[int, Field(ge=1, le=65535)], ...], Field(max_length=16)] = ()
    """Ports others may connect to."""


class FileCapability(Part):
    """A volume the plugin may see."""

    volume: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    """Its name, given by the administrator."""
    mount: Annotated[str, Field(pattern=r"^/data/[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=128)]
    """Where it appears, below ``/data``."""
    access: Literal["read", "write"] = "read"
    """``read`` or ``write``."""


class BusCapability(Part):
    """What of the bus the plugin may use. Written, even as ``{}``, it lets those who may call the plugin."""

    publish: Annotated[tuple[Annotated[str, Field(max_length=255)], ...], Field(max_length=64)] = ()
    """Subjects it may publish to, like ``notes.saved``, ``notes.*`` or ``notes.>``."""
    subscribe: Annotated[tuple[Annotated[str, Field(max_length=255)], ...], Field(max_length=64)] = ()
    """Subjects it may subscribe to; ``crucible.events.>`` are the controller's events of its namespace."""
    call: Annotated[tuple[Annotated[str, Field(max_length=255)], ...], Field(max_length=64)] = ()
    """Methods of other plugins it may call, as ``plugin.method`` or ``plugin.*``."""
    encrypt_local: bool = False
    """TLS on the way to the broker on the same machine too, which no other plugin sees in any case."""


class StoreCapability(Part):
    """Key-value data of the plugin's own."""

    size: Annotated[Bytes, Field(ge=1024, le=2**30)]
    """How much it may hold: keys and values, and 256 bytes for each key; 65,536 keys at most."""
    on_delete: Literal["keep", "remove"] = "keep"
    """What becomes of the data when the Plugin is deleted: ``keep`` or ``remove``."""


class Capabilities(Part):
    """What the plugin may do. Everything empty, the default, means nothing."""

    network: NetworkCapability = NetworkCapability()
    """The network."""
    files: Annotated[tuple[FileCapability, ...], Field(max_length=16), ListMap("mount")] = ()
    """Volumes that it may see."""
    secrets: Annotated[tuple[SecretName, ...], Field(max_length=16)] = ()
    """Secrets of its namespace that it may read, each key as the file ``/secrets/NAME/KEY``."""
    bus: BusCapability = BusCapability()
    """Messages."""
    store: StoreCapability | None = None
    """A key-value store, reached over the bus."""


class Resources(Part):
    """What each instance may use. The kernel holds it to every one of these."""

    cpu: Annotated[Cpu, Field(ge=10, le=256_000)] = 500
    """Share of cores."""
    memory: Annotated[Bytes, Field(ge=8 * _MI, le=2**44)] = 128 * _MI
    """Memory, scratch files included; there is no swap."""
    pids: Annotated[int, Field(ge=4, le=32768)] = 64
    """Processes and threads, four of them the sandbox's own."""
    disk: Annotated[Bytes, Field(ge=_MI, le=2**44)] = 64 * _MI
    """Scratch space in /tmp, gone with the instance."""
    open_files: Annotated[int, Field(ge=16, le=65536)] = 256
    """File descriptors of each process."""
    network: Annotated[Bytes, Field(ge=1024, le=2**44)] | None = None
    """Bytes a second through the egress proxy, both directions and all instances together; unset: any."""
    fuel: Annotated[int | None, Field(ge=1, le=2**53)] = None
    """Instructions one run may execute. Only for types wasm and rune; unset: as many as it likes."""
    time: Annotated[Duration | None, Field(ge=0.01, le=86400)] = None
    """How long one run may take. Only for types wasm and rune; unset: as long as it likes."""


class Sandbox(Part):
    """How the plugin is isolated."""

    isolation: Isolation = Isolation.PROCESS
    """The least that must stand between the plugin and the host."""
    allow_degraded: Annotated[tuple[Control, ...], Field(max_length=32)] = ()
    """Controls this plugin may start without where the host cannot enforce them."""


class Backoff(Part):
    """How long to wait between restarts: doubled from the second crash on, up to a limit."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.initial) || !has(self.max) || duration(self.initial) <= duration(self.max)",
                _NO_ROOM_TO_GROW,
            )
        )
    )

    initial: Annotated[Duration, Field(ge=0.01, le=3600)] = 0.1
    """Before the restart that follows the second crash; the first is restarted at once."""
    max: Annotated[Duration, Field(ge=0.01, le=86400)] = 30.0
    """The longest wait; no shorter than ``initial``."""

    @model_validator(mode="after")
    def _can_grow(self) -> Backoff:
        if self.initial > self.max:
            raise ValueError(_NO_ROOM_TO_GROW)
        return self


class Recovery(Part):
    """What happens when an instance ends by itself."""

    strategy: Annotated[tuple[Strategy, ...], Field(min_length=1, max_length=4)] = (
        Strategy.RESTART,
        Strategy.QUARANTINE,
    )
    """What to try, in order. ``restart``: start again, ``maxRestarts`` times; ``recreate``: once more, after
    all that was made for it is deleted; ``rollback``: run the last good revision instead; ``quarantine``: no
    more. Without quarantine at the end, it is started for ever."""
    max_restarts: Annotated[int, Field(ge=0, le=100)] = 5
    """How often ``restart`` starts it again within the window before the next step."""
    window: Annotated[Duration, Field(ge=1, le=86400)] = 600.0
    """How far back restarts count."""
    backoff: Backoff = Backoff()
    """How long to wait."""

    @model_validator(mode="after")
    def _in_order(self) -> Recovery:
        if len(set(self.strategy)) != len(self.strategy):
            raise ValueError("a strategy is named twice")
        if Strategy.QUARANTINE in self.strategy[:-1]:
            raise ValueError("quarantine ends recovery: write it last")
        return self


def _only_for(strategies: str, condition: str) -> str:
    return f"!({condition}) || (has(self.strategy) && self.strategy in [{strategies}])"


_BESIDE = "'rolling', 'handover'"
_SURGES = "!(has(self.maxSurge) && string(self.maxSurge) in ['0', '0%'])"


class Update(Part):
    """How a new revision takes over."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (_only_for(_BESIDE, "has(self.verify)"), _VERIFY_IS_FOR_BESIDE),
            (_only_for(_BESIDE, "has(self.maxSurge)"), _SURGE_IS_FOR_BESIDE),
            (_only_for("'rolling'", "has(self.maxUnavailable)"), _GAPS_ARE_FOR_ROLLING),
            (f"!has(self.strategy) || self.strategy != 'handover' || {_SURGES}", _NEVER_WITHOUT),
            (
                f"{_SURGES} || (has(self.maxUnavailable) && !(string(self.maxUnavailable) in ['0', '0%']))",
                _NOTHING_MOVES,
            ),
        )
    )

    strategy: UpdateStrategy = UpdateStrategy.RECREATE
    """``recreate`` stops an old instance before the new one starts, ``rolling`` once that is verified;
    ``handover`` besides gives all new calls and connections to the one until then, to the other from then on,
    and lets the old one finish what it has."""
    verify: Annotated[Duration, Field(ge=0, le=3600)] | None = None
    """For ``rolling`` and ``handover``: how long a new instance must run before it takes over; 1s unless
    given."""
    max_surge: Share | None = None
    """For ``rolling`` and ``handover``: how many replicas may have a new instance beside the old one at once,
    as a number or a part of ``replicas``, rounded up; 1 unless given."""
    max_unavailable: Share | None = None
    """For ``rolling``: how many replicas may be without one that serves meanwhile, as a number or a part of
    ``replicas``, rounded down; 0 unless given."""
    rollback_on_failure: bool = False
    """Go back to the last good revision when a new one crashes, or is not ready in time, before it ever was
    good; in time is ``verify`` after its start, 30s unless given."""

    @property
    def overlaps(self) -> bool:
        """The old instance serves until the new one does."""
        return self.strategy is not UpdateStrategy.RECREATE

    @property
    def hands_over(self) -> bool:
        """What comes anew goes to one of the two at any time, and the old one finishes what it has."""
        return self.strategy is UpdateStrategy.HANDOVER

    @property
    def trial(self) -> float:
        """Seconds in which a new revision has to become ready, or be given up."""
        return 30.0 if self.verify is None else self.verify

    @property
    def verification(self) -> float:
        """Seconds for which a new instance must run before it takes over."""
        return 1.0 if self.verify is None else self.verify

    def surge(self, replicas: int) -> int:
        """Return how many replicas may have two instances at once."""
        return share_of(self.max_surge or "1", replicas, up=True)

    def unavailable(self, replicas: int) -> int:
        """Return how many replicas may be without one that serves; one where nothing could move otherwise."""
        found = share_of(self.max_unavailable or "0", replicas, up=False)
        return found or int(self.surge(replicas) == 0)

    @model_validator(mode="after")
    def _suits_its_strategy(self) -> Update:
        if self.verify is not None and not self.overlaps:
            raise ValueError(_VERIFY_IS_FOR_BESIDE)
        if self.max_surge is not None and not self.overlaps:
            raise ValueError(_SURGE_IS_FOR_BESIDE)
        if self.max_unavailable is not None and self.strategy is not UpdateStrategy.ROLLING:
            raise ValueError(_GAPS_ARE_FOR_ROLLING)
        if self.hands_over and self.max_surge in _NONE:
            raise ValueError(_NEVER_WITHOUT)
        return self

    @model_validator(mode="after")
    def _moves(self) -> Update:
        if self.max_surge in _NONE and (self.max_unavailable or "0") in _NONE:
            raise ValueError(_NOTHING_MOVES)
        return self


class PreStop(Part):
    """A command that runs inside an instance before it is asked to end."""

    command: Annotated[tuple[Word, ...], Field(min_length=1, max_length=64)]
    """The program, looked for on the instance's PATH, then its arguments. No shell."""
    timeout: Annotated[Duration, Field(ge=0.1, le=300)] = 5.0
    """How long it may take; then it is killed, and the instance is asked to end all the same."""

    @model_validator(mode="after")
    def _can_be_executed(self) -> PreStop:
        if any("\0" in word for word in self.command):
            raise ValueError("command contains a NUL byte, which no argument can hold")
        return self


class Lifecycle(Part):
    """What happens at the turns of an instance's life."""

    drain: Annotated[Duration, Field(ge=0, le=3600)] | None = None
    """Before ``preStop``: how long, at most, an instance that is to be stopped goes on with the calls that it
    has on the bus, and is given no new ones; 0s, not at all, unless given; with update strategy ``handover``
    10s unless given, and that long with the connections it has."""
    pre_stop: PreStop | None = None
    """Before SIGTERM, whyever the instance is stopped while it runs."""


class PluginSpec(Part):
    """The desired state of one plugin."""

    model_config = ConfigDict(json_schema_extra=rules(*SPEC_RULES, SECRETS_RULE))

    version: Version
    """Semantic version of the plugin."""
    description: Annotated[str, Field(max_length=1024)] = ""
    """One line for people."""
    type: PluginType
    """What the plugin is written in."""
    source: Source
    """Where its files come from."""
    entrypoint: Annotated[tuple[Word, ...], Field(max_length=64)] = ()
    """The program, relative to the source, then its arguments. With an image: instead of the image's own."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64), ListMap("name")] = ()
    """Environment variables."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Handed to the plugin as a JSON file, whose path is in CRUCIBLE_CONFIG."""
    config_schema: dict[str, Any] | None = None
    """JSON Schema that config must satisfy."""
    config_delivery: ConfigDelivery = ConfigDelivery.RESTART
    """What a changed config does: ``restart`` replaces the instances; ``file`` puts a new file in the place
    of the old one; ``signal`` sends SIGHUP to the plugin's main process besides; ``bus`` calls the plugin's
    ``$config``, and replaces an instance that does not take it."""
    replicas: Annotated[int, Field(ge=0, le=100)] = 1
    """How many instances run."""
    suspend: bool = False
    """Stop every instance, keep everything else."""
    dependencies: Annotated[tuple[Dependency, ...], Field(max_length=32), ListMap("name")] = ()
    """Plugins this one needs: it starts once they are ready."""
    capabilities: Capabilities = Capabilities()
    """What it may do."""
    resources: Resources = Resources()
    """What it may use."""
    sandbox: Sandbox = Sandbox()
    """How it is isolated."""
    health: Health = Health()
    """How to tell that it is well."""
    lifecycle: Lifecycle = Lifecycle()
    """What happens at the turns of an instance's life."""
    recovery: Recovery = Recovery()
    """What to do when it is not."""
    update: Update = Update()
    """How a new revision takes over."""
    revision_history_limit: Annotated[int, Field(ge=1, le=50)] = 10
    """How many earlier revisions are kept to go back to."""
    stop_grace: Annotated[Duration, Field(ge=0, le=3600)] = 10.0
    """Time between the polite request to end (SIGTERM) and the end (SIGKILL)."""
