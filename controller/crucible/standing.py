"""What a program that embeds us sees: how plugins stand, and what was published."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.bus.wire import Frame


@dataclass(frozen=True, slots=True)
class PluginState:
    """How a plugin is.

    Attributes:
        name: its own.
        namespace: where it lives.
        phase: one word for people: ``Running``, ``BackOff``, ``Refused``, …
        ready: all replicas serve, as it was last asked to.
        reason: one word, why it is or is not.
        message: the same in words that say what to do.
        instances: names of those that serve.
        restarts: of all replicas, since the revision came.
        object: the whole Plugin as the API server sent it.
    """

    name: str
    namespace: str
    phase: str
    ready: bool
    reason: str
    message: str
    instances: tuple[str, ...]
    restarts: int
    object: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, plugin: Mapping[str, Any]) -> PluginState:
        """Read a Plugin object."""
        meta, status = plugin["metadata"], plugin.get("status") or {}
        conditions = {one["type"]: one for one in status.get("conditions") or ()}
        ready, stalled = conditions.get("Ready", {}), conditions.get("Stalled", {})
        told = stalled if stalled.get("status") == "True" else ready
        current = status.get("observedGeneration", 0) >= meta.get("generation", 1)
        changing = conditions.get("Reconciling", {}).get("status") == "True"
        replicas = status.get("instances") or ()
        return cls(
            name=meta["name"],
            namespace=meta["namespace"],
            phase=status.get("phase", "Pending"),
            ready=ready.get("status") == "True" and current and not changing,
            reason=told.get("reason", ""),
            message=told.get("message", ""),
            instances=tuple(one["name"] for one in replicas if one.get("name")),
            restarts=sum(one.get("restarts", 0) for one in replicas),
            object=plugin,
        )


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody published.

    Attributes:
        subject: to which subject.
        sender: the plugin that did; ``$controller``: an event.
        payload: the JSON value; bytes where it is none.
        missed: how many before this one were lost because nobody took them in time.
    """

    subject: str
    sender: str
    payload: Any
    missed: int = 0

    @classmethod
    def of(cls, frame: Frame) -> Message:
        """Read a MESSAGE."""
        missed = int(frame.headers.get("missed", "0"))
        return cls(frame.name, frame.headers.get("from", ""), value_of(frame.payload), missed)


def bytes_of(value: object) -> bytes:
    """Return a payload: bytes as they are, nothing for None, JSON for all else."""
    if isinstance(value, bytes):
        return value
    return b"" if value is None else json.dumps(value, separators=(",", ":")).encode()


def value_of(payload: bytes) -> Any:  # noqa: ANN401 - it is what somebody sent
    """Return the JSON value of a payload; bytes where it is none, None where it is empty."""
    if not payload:
        return None
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return payload
