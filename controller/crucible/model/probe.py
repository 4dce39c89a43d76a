"""Probes: how a plugin shows that it has started, is ready and is alive."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import ConfigDict, Field, model_validator

from crucible.model.fields import Bytes, Cpu, Duration, Part, Word, rules

KINDS: Final = ("process", "http", "tcp", "exec", "grpc", "ping", "resource", "custom")
"""What a probe can look at; one probe looks at exactly one of them."""
_EXACTLY_ONE: Final = (
    f"[{', '.join(f'has(self.{kind})' for kind in KINDS)}].filter(given, given).size() == 1",
    f"give exactly one of {', '.join(KINDS)}",
)
_ONE_SUCCESS: Final = tuple(
    (
        f"!has(self.{check}) || !has(self.{check}.successes) || self.{check}.successes == 1",
        f"{check}: one success is all it needs: remove successes",
    )
    for check in ("startup", "live")
)
Port = Annotated[int, Field(ge=1, le=65535)]


class ProcessProbe(Part):
    """The instance runs; nothing is asked of the plugin."""


class HttpProbe(Part):
    """A GET request is answered with a status from 200 to 399. Redirects are not followed."""

    port: Port
    """On the instance's own loopback address."""
    path: Annotated[str, Field(pattern=r"^/[!-~]*$", max_length=1024)] = "/"
    """Path and query."""


class TcpProbe(Part):
    """A connection is accepted."""

    port: Port
    """On the instance's own loopback address."""


class ExecProbe(Part):
    """A command inside the instance ends with status 0."""

    command: Annotated[tuple[Word, ...], Field(min_length=1, max_length=64)]
    """The program, looked for on the instance's PATH, then its arguments. No shell."""


class GrpcProbe(Part):
    """The standard gRPC health service answers SERVING."""

    port: Port
    """On the instance's own loopback address."""
    service: Annotated[str, Field(pattern=r"^[!-~]*$", max_length=255)] = ""
    """The service asked about; empty: the server as a whole."""


class PingProbe(Part):
    """The plugin answers a ping on the bus."""


class ResourceProbe(Part):
    """What the instance uses is at most this much of each; give at least one."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.memory) || has(self.cpu) || has(self.pids)", "give memory, cpu or pids")
        )
    )

    memory: Annotated[Bytes, Field(ge=2**20, le=2**44)] | None = None
    """Bytes held."""
    cpu: Annotated[Cpu, Field(ge=1, le=256_000)] | None = None
    """Cores, on average since the last asking."""
    pids: Annotated[int | None, Field(ge=1, le=32768)] = None
    """Processes and threads."""

    @model_validator(mode="after")
    def _limits_something(self) -> ResourceProbe:
        if self.memory is None and self.cpu is None and self.pids is None:
            raise ValueError("give memory, cpu or pids")
        return self


class CustomProbe(Part):
    """A CEL expression over what the instance uses and what its other probes said is true."""

    expression: Annotated[str, Field(min_length=1, max_length=1024)]
    """Like ``usage.memory < 50000000 && usage.cpu < 0.9``."""


class Probe(Part):
    """One question, asked again and again."""

    model_config = ConfigDict(json_schema_extra=rules(_EXACTLY_ONE))

    process: ProcessProbe | None = None
    """The instance runs."""
    http: HttpProbe | None = None
    """An HTTP request is answered."""
    tcp: TcpProbe | None = None
    """A connection is accepted."""
    exec: ExecProbe | None = None
    """A command succeeds."""
    grpc: GrpcProbe | None = None
    """The gRPC health service says SERVING."""
    ping: PingProbe | None = None
    """The plugin answers on the bus, and so takes part in it."""
    resource: ResourceProbe | None = None
    """What the instance uses stays below thresholds."""
    custom: CustomProbe | None = None
    """An expression holds."""
    interval: Annotated[Duration, Field(ge=0.1, le=3600)] = 10.0
    """Between two askings."""
    timeout: Annotated[Duration, Field(ge=0.05, le=60)] = 1.0
    """How long an answer may take; nobody is asked again before it is there, or late."""
    failures: Annotated[int, Field(ge=1, le=100)] = 3
    """Failures in a row until it counts as failed."""
    successes: Annotated[int, Field(ge=1, le=100)] = 1
    """Successes in a row until it counts as passed."""
    initial: Annotated[Duration, Field(ge=0, le=3600)] = 0.0
    """How long to wait before the first asking."""
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """By up to how much of the interval an asking comes sooner, so that not all plugins are asked at once."""

    @property
    def kind(self) -> str:
        """Which one it is: ``process``, ``http``, ``tcp`` and so on."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @model_validator(mode="after")
    def _exactly_one(self) -> Probe:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(KINDS)}; got {', '.join(given) or 'none'}")
        if self.exec is not None and any("\0" in word for word in self.exec.command):
            raise ValueError("exec.command contains a NUL byte, which no argument can hold")
        return self


class StartupProbe(Probe):
    """A probe that is asked often, and has a minute to pass for the first time."""

    interval: Annotated[Duration, Field(ge=0.1, le=3600)] = 1.0
    """Between two askings."""
    failures: Annotated[int, Field(ge=1, le=10_000)] = 60
    """Failures in a row until the start counts as failed."""


class Health(Part):
    """When the plugin counts as started, ready and alive."""

    model_config = ConfigDict(json_schema_extra=rules(*_ONE_SUCCESS))

    startup: StartupProbe | None = None
    """Holds the other probes back until it passes; an instance that never does is replaced."""
    ready: Probe | None = None
    """Decides whether the plugin is Ready."""
    live: Probe | None = None
    """Replaces an instance that fails it."""

    @property
    def probes(self) -> tuple[tuple[str, Probe], ...]:
        """Those that are given, each with the name of its field."""
        named = (("startup", self.startup), ("ready", self.ready), ("live", self.live))
        return tuple((name, probe) for name, probe in named if probe is not None)

    @model_validator(mode="after")
    def _one_success(self) -> Health:
        for probe, (_, message) in zip((self.startup, self.live), _ONE_SUCCESS, strict=True):
            if probe is not None and probe.successes != 1:
                raise ValueError(message)
        return self
