"""What goes between machines: the subjects it goes by, who may use which, and what may enter here. Pure.

Every subject holds the name of the machine that speaks, and the server lets a machine publish only to those
that hold its own. So a receiver knows who spoke, whatever the message says of itself::

    crucible.here.FROM                      a beat
    crucible.renew.FROM                     a request for a new certificate
    crucible.to.TO.FROM                     frames between the two: calls, and what one has for the other
    crucible.say.NAMESPACE.FROM.PLUGIN.…    what a plugin published, once
    crucible.keep.NAMESPACE.FROM.PLUGIN.…   the same, kept until it was taken
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crucible.core import subjects
from crucible.model.backbone import ANY, Share

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX: Final = "crucible"
MACHINE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SPEAKER: Final = re.compile(r"\$host|[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?")
_CALLED: Final = re.compile(r"([a-z0-9](?:[a-z0-9-]{0,48}[a-z0-9])?)\.([A-Za-z0-9_-]{1,64})")
_STREAM: Final = "CRUCIBLE-"
_SUBSCRIPTION: Final = re.compile(r"@?[A-Za-z0-9-]{1,32}")
_COMMON: Final = "@"
_EVENT_WORDS: Final = 5
"""Words of an event's subject in front of the one that the plugin chose."""


def here(machine: str) -> str:
    """Return the subject on which a machine says that it is there."""
    return f"{PREFIX}.here.{machine}"


def renew(machine: str) -> str:
    """Return the subject on which a machine asks for a new certificate."""
    return f"{PREFIX}.renew.{machine}"


def to(receiver: str, sender: str) -> str:
    """Return the subject of frames from one machine to another."""
    return f"{PREFIX}.to.{receiver}.{sender}"


def say(namespace: str, machine: str, plugin: str, subject: str) -> str:
    """Return the subject of an event."""
    return f"{PREFIX}.say.{namespace}.{machine}.{plugin}.{subject}"


def keep(namespace: str, machine: str, plugin: str, subject: str) -> str:
    """Return the subject of a durable event."""
    return f"{PREFIX}.keep.{namespace}.{machine}.{plugin}.{subject}"


def kept(namespace: str, pattern: str) -> str:
    """Return the subjects of durable events, whoever published them, that fit a pattern."""
    return f"{PREFIX}.keep.{namespace}.*.*.{pattern}"


def stream(namespace: str) -> str:
    """Return the name of the stream that keeps a namespace's durable events."""
    return f"{_STREAM}{namespace}"


def is_subscription(name: str) -> bool:
    """Say whether a durable subscription can be called so."""
    return _SUBSCRIPTION.fullmatch(name) is not None


def consumer(machine: str, plugin: str, name: str) -> str:
    """Return what a durable subscription of a plugin is called on its stream.

    It belongs to the plugin of one machine: a plugin of another machine that has the same name takes nothing
    from it. One whose name begins with ``@`` is the same for the plugins of that name on all machines.
    Neither machines' nor plugins' names hold a ``_``, so no two are called alike.
    """
    common = name.startswith(_COMMON)
    return f"{'' if common else machine}_{plugin.replace('$', '_')}_{name.removeprefix(_COMMON)}"


def heard(machine: str, namespaces: Iterable[str]) -> tuple[str, ...]:
    """Return what a machine subscribes to."""
    return (
        here("*"),
        to(machine, "*"),
        *(f"{PREFIX}.{kind}.{name}.>" for name in namespaces for kind in ("say", "keep")),
    )


@dataclass(frozen=True, slots=True)
class Event:
    """Where an event comes from, by its subject; ``plugin`` is the machine's word, the rest is proven."""

    namespace: str
    machine: str
    plugin: str
    subject: str


def event_of(text: str) -> Event | None:
    """Read the subject of an event; None when it is none."""
    words = text.split(".", _EVENT_WORDS)
    if len(words) != _EVENT_WORDS + 1 or words[0] != PREFIX or words[1] not in ("say", "keep"):
        return None
    _, _, namespace, machine, plugin, subject = words
    if (
        NAMESPACE.fullmatch(namespace) is None
        or MACHINE.fullmatch(machine) is None
        or _SPEAKER.fullmatch(plugin) is None
        or not subjects.is_subject(subject)
    ):
        return None
    return Event(namespace, machine, plugin, subject)


def speaker_of(kind: str, text: str, receiver: str = "") -> str | None:
    """Return which machine speaks on a subject of a kind: ``here``, ``renew``, ``to``; None: it is none."""
    wanted, _, machine = text.rpartition(".")
    if wanted != (f"{PREFIX}.{kind}.{receiver}" if receiver else f"{PREFIX}.{kind}"):
        return None
    return machine if MACHINE.fullmatch(machine) is not None else None


@dataclass(frozen=True, slots=True)
class Called:
    """What a CALL from another machine names."""

    namespace: str
    caller: str
    plugin: str
    method: str

    @property
    def name(self) -> str:
        """``plugin.method``."""
        return f"{self.plugin}.{self.method}"


def called(name: str) -> Called | None:
    """Read the name of a CALL between machines, ``NAMESPACE/CALLER/PLUGIN.METHOD``; None when it is none.

    What the broker itself answers and the host application are not to be had from elsewhere.
    """
    namespace, _, rest = name.partition("/")
    caller, _, method = rest.partition("/")
    found = _CALLED.fullmatch(method)
    if found is None or NAMESPACE.fullmatch(namespace) is None or _SPEAKER.fullmatch(caller) is None:
        return None
    return Called(namespace, caller, found[1], found[2])


def calling(namespace: str, caller: str, name: str) -> str:
    """Return the name of a CALL between machines."""
    return f"{namespace}/{caller}/{name}"


def joins(share: Share | None, machine: str) -> bool:
    """Say whether a namespace has to do with a machine at all."""
    return share is not None and (machine in share.machines or ANY in share.machines)


def offers(share: Share, plugin: str) -> bool:
    """Say whether others may call anything of a plugin here."""
    return any(name.partition(".")[0] == plugin for name in share.call)


def may_enter(share: Share | None, machine: str, plugin: str, method: str) -> bool:
    """Say whether a machine may have a method here called."""
    return (
        share is not None
        and joins(share, machine)
        and (f"{plugin}.{method}" in share.call or f"{plugin}.*" in share.call)
    )


def may_tell(share: Share | None, machine: str, subject: str) -> bool:
    """Say whether a machine may publish to a subject here; to the controller's own never."""
    return (
        share is not None
        and joins(share, machine)
        and not subjects.is_ours(subject)
        and subjects.covered(share.publish, subject)
    )


def stranger(plugin: str, machine: str) -> str:
    """Return who somebody of another machine is here, as ``from``: no plugin of ours has such a name."""
    return f"{plugin}@{machine}"
