"""What a plugin may do on the bus, and who is on it: values that controller and broker share.

Plain dataclasses and JSON: the broker is a program of its own and stays small.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

HOST = "$host"
"""Who the host application is, where a plugin's name would stand."""

CONTROLLER = "$controller"
"""Who the controller is, as ``from``."""

EVENTS = "crucible.events"
"""What of the bus a runtime may offer, beside types of plugins: what the controller publishes."""
USES = frozenset({"python", "javascript", "wasm", "binary", "rune", "service", EVENTS})
"""All of it: the types whose plugins can speak to a broker there, and those events."""


@dataclass(frozen=True, slots=True)
class Grants:
    """What one plugin may do on the bus. The default: nothing.

    Attributes:
        publish: patterns of subjects it may publish to.
        subscribe: patterns it may subscribe within.
        call: methods it may call, as ``plugin.method`` or ``plugin.*``.
        store: bytes its store may hold; None: it has none.
        keep_store: what it holds is kept when the Plugin is deleted.
        everything: the host application's: all of a namespace.
    """

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    call: tuple[str, ...] = ()
    store: int | None = None
    keep_store: bool = True
    everything: bool = False

    @property
    def nothing(self) -> bool:
        """The plugin needs no bus for what it may do; it can still be called."""
        return self == Grants()


@dataclass(frozen=True, slots=True)
class Member:
    """One Plugin, as the broker knows it.

    Attributes:
        namespace: where it lives.
        plugin: its name there.
        uid: of the object; another object of the same name is another member.
        grants: what it may do.
        state: why nobody answers for it while it is not connected, in words; empty: it should.
        draining: slots of the instances that are given nothing new, because they are to be stopped, or
            because the one before them still serves.
    """

    namespace: str
    plugin: str
    uid: str
    grants: Grants
    state: str = ""
    draining: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name, by which others address it."""
        return self.namespace, self.plugin

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types; what an earlier release's broker does not know only where it is used."""
        found = asdict(self)
        if not self.draining:
            del found["draining"]
        return found

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Member:
        """Read what :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError: it did not write this.
        """
        grants = data["grants"]
        lists = {name: tuple(map(str, grants[name])) for name in ("publish", "subscribe", "call")}
        store = None if grants["store"] is None else int(grants["store"])
        return cls(
            namespace=str(data["namespace"]),
            plugin=str(data["plugin"]),
            uid=str(data["uid"]),
            grants=Grants(
                **lists,
                store=store,
                keep_store=grants["keep_store"] is True,
                everything=grants["everything"] is True,
            ),
            state=str(data["state"]),
            draining=tuple(map(str, data.get("draining", ()))),
        )
