"""What a manifest grants on the bus. Pure; deny is the default, and an empty list denies."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from crucible.core import subjects
from crucible.errors import Violation
from crucible.model.bus import EVENTS, Grants, Member
from crucible.model.decision import Event
from crucible.model.workload import Slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from crucible.model.manifest import PluginSpec
    from crucible.model.plugin import Identity
    from crucible.model.status import PluginStatus, Replica

_CALL: Final = re.compile(r"(\$host|[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?)\.(\*|[A-Za-z0-9_-]{1,64})")
TOLD: Final = 200
"""Characters of what the broker tells of a fault; what is as long was cut."""
_STATE_LIMIT: Final = 300
_LINES_LIMIT: Final = 1000
_HOW: Final = (
    "words of letters, digits, '_' and '-' with dots between; '*' is any word, '>' at the end the rest"
)


def refusal_event(what: str) -> Event:
    """Return the event for what the broker tells of a refusal: ``publish notes.saved``.

    What it says of a name was made from a plugin's words: a line that would allow it is only proposed where
    a manifest can hold it.
    """
    verb, _, name = what.partition(" ")
    fits = {"publish": subjects.is_subject, "subscribe": subjects.is_pattern, "call": is_method}.get(verb)
    granted = fits is not None and fits(name) and len(what) < TOLD and not subjects.is_ours(name)
    advice = f"; to allow it, add {name!r} to spec.capabilities.bus.{verb}" if granted else ""
    return Event("Warning", "BusDenied", f"{what!r} is not in the plugin's list{advice}")


def limit_event(notices: Iterable[str]) -> Event:
    """Return the event for what the broker tells that a plugin does wrong, or too much of."""
    return Event("Warning", "BusLimited", "; ".join(notices)[:_LINES_LIMIT])


def is_on_bus(spec: PluginSpec) -> bool:
    """Say whether a plugin takes part in the bus: its manifest says something of it, be it only ``{}``."""
    return (
        "bus" in spec.capabilities.model_fields_set
        or spec.capabilities.store is not None
        or any(probe.ping is not None for _, probe in spec.health.probes)
    )


def uses_of(spec: PluginSpec) -> list[tuple[str, str]]:
    """Return what a plugin needs of the bus that not every runtime offers: each with the field that asks."""
    if not is_on_bus(spec):
        return []
    subscribe = spec.capabilities.bus.subscribe
    heard = [index for index, pattern in enumerate(subscribe) if subjects.is_ours(pattern)]
    return [
        ("spec.capabilities.bus", spec.type.value),
        *((f"spec.capabilities.bus.subscribe[{index}]", EVENTS) for index in heard),
    ]


def grants_of(spec: PluginSpec) -> Grants:
    """Return what an admitted manifest grants."""
    bus = spec.capabilities.bus
    store = spec.capabilities.store
    return Grants(
        publish=tuple(sorted(set(bus.publish))),
        subscribe=tuple(sorted(set(bus.subscribe))),
        call=tuple(sorted(set(bus.call))),
        store=None if store is None else store.size,
        keep_store=store is None or store.on_delete == "keep",
    )


def member_of(identity: Identity, spec: PluginSpec | None, status: PluginStatus) -> Member:
    """Return a Plugin as the broker knows it.

    Args:
        identity: who it is.
        spec: an admitted one; None for a Plugin that is refused or going, which may do nothing.
        status: what is said of it.
    """
    grants = Grants() if spec is None else grants_of(spec)
    slots = {str(Slot(each.ordinal, each.attempt)) for each in status.draining}
    if spec is not None and spec.update.hands_over:
        slots |= {str(Slot(each.ordinal, each.attempt)) for each in status.instances if _waits(each)}
    return Member(
        identity.namespace, identity.name, identity.uid, grants, _state(spec, status), tuple(sorted(slots))
    )


def _waits(replica: Replica) -> bool:
    """Say whether its new instance is given nothing yet, because the old one is."""
    return bool(replica.incumbent) and replica.name not in {"", replica.incumbent}


def _state(spec: PluginSpec | None, status: PluginStatus) -> str:
    """Say why nobody answers for a Plugin; empty while somebody should."""
    if spec is not None and not is_on_bus(spec):
        return "its manifest takes no part in the bus: write spec.capabilities.bus: {}"
    ready = next((condition for condition in status.conditions if condition.type == "Ready"), None)
    if ready is None:
        return "it was not looked at yet"
    return "" if ready.status == "True" else f"{ready.reason}: {ready.message}"[:_STATE_LIMIT]


def is_method(name: str) -> bool:
    """Say whether it names a method of a plugin or of the host application, or all of one's."""
    return _CALL.fullmatch(name) is not None


def may_call(grants: Grants, plugin: str, method: str) -> bool:
    """Say whether a method may be called."""
    return grants.everything or f"{plugin}.{method}" in grants.call or f"{plugin}.*" in grants.call


def may_publish(grants: Grants, subject: str) -> bool:
    """Say whether a subject may be published to; the controller's own never."""
    if subjects.is_ours(subject):
        return False
    return grants.everything or subjects.covered(grants.publish, subject)


def may_subscribe(grants: Grants, pattern: str) -> bool:
    """Say whether a pattern may be subscribed to."""
    return grants.everything or subjects.covered(grants.subscribe, pattern)


def violations(spec: PluginSpec) -> Iterator[Violation]:
    """Yield what is wrong with the bus capabilities of a manifest."""
    bus = spec.capabilities.bus
    here = "spec.capabilities.bus"
    for name, patterns in (("publish", bus.publish), ("subscribe", bus.subscribe)):
        for index, pattern in enumerate(patterns):
            if not subjects.is_pattern(pattern):
                yield Violation(f"{here}.{name}[{index}]", f"{pattern!r} is no pattern of subjects: {_HOW}")
    if spec.lifecycle.drain and not is_on_bus(spec) and not spec.update.hands_over:
        yield Violation(
            "spec.lifecycle.drain", "is for a plugin on the bus: remove it, or write capabilities: {bus: {}}"
        )
    for index, pattern in enumerate(bus.publish):
        if subjects.is_ours(pattern):
            yield Violation(
                f"{here}.publish[{index}]",
                "subjects that begin with 'crucible' are the controller's: choose another first word",
            )
    for index, method in enumerate(bus.call):
        if not is_method(method):
            yield Violation(
                f"{here}.call[{index}]",
                f"{method!r} is no method of a plugin: write plugin.method, or plugin.* for all it has",
            )
