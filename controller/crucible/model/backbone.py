"""How machines are joined, and what they share: values that controller and broker have in common.

Plain dataclasses and JSON: the broker is a program of its own and stays small.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

PORT: Final = 4222
"""Where a NATS server listens unless something else is said."""
ANY: Final = "*"
"""Every machine, where a machine's name would stand."""
LINES: Final = "$lines"
"""Who comes through the door by which other machines come; no plugin is called so."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one namespace of this machine has to do with other machines. The default: nothing.

    Attributes:
        namespace: which.
        machines: with whom: names, or ``*``; only these are called, told and heard.
        call: methods here that they may call, as ``plugin.method`` or ``plugin.*``.
        publish: patterns of subjects here that they may publish to.
    """

    namespace: str
    machines: tuple[str, ...] = ()
    call: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Meeting:
    """How a machine can be met by others without the server.

    Attributes:
        identity: what its certificate is made out to: its name, or its name, a dot and more.
        host: its address; empty: that of the server, which runs on it.
        port: where it listens; 0: it does not, and goes to others itself.
    """

    identity: str
    host: str = ""
    port: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Joining:
    """All that a broker needs to join the backbone.

    Attributes:
        machine: who it is there; the certificate says the same.
        host: of the server.
        port: of the server.
        authority: certificates, in PEM, of who may vouch for the server.
        certificate: our own, in PEM.
        key: of that, in PEM.
        shares: what others may do here.
        meeting: how others can have a line to us without the server; None: they cannot, nor we to them.
        listen: address at which we let them in, at the port that is named there; empty: we do not.
    """

    machine: str
    host: str
    port: int
    authority: str
    certificate: str
    key: str
    shares: tuple[Share, ...] = ()
    meeting: Meeting | None = None
    listen: str = ""

    def __repr__(self) -> str:
        """Tell all but the key."""
        return f"Joining({self.machine!r}, {self.host!r}, {self.port})"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Joining:
        """Read what :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError: it did not write this.
        """
        shares = tuple(
            Share(
                str(one["namespace"]),
                **{name: tuple(map(str, one[name])) for name in ("machines", "call", "publish")},
            )
            for one in data["shares"]
        )
        named = ("machine", "host", "authority", "certificate", "key", "listen")
        texts = {name: str(data[name]) for name in named}
        met = data["meeting"]
        meeting = None if met is None else Meeting(str(met["identity"]), str(met["host"]), int(met["port"]))
        return cls(**texts, port=int(data["port"]), shares=shares, meeting=meeting)
