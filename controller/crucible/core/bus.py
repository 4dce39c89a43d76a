"""What a manifest grants on the bus. Pure; deny is the default, and an empty list denies."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from crucible.core import subjects
from crucible.errors import Violation
from crucible.model.bus import Grants, Member

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crucible.model.manifest import PluginSpec
    from crucible.model.plugin import Identity

_CALL: Final = re.compile(r"(\$host|[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?)\.(\*|[A-Za-z0-9_-]{1,64})")
_HOW: Final = (
    "words of letters, digits, '_' and '-' with dots between; '*' is any word, '>' at the end the rest"
)


def grants_of(spec: PluginSpec) -> Grants:
    """Return what an admitted manifest grants."""
    bus = spec.capabilities.bus
    store = spec.capabilities.store
    return Grants(
        publish=tuple(sorted(set(bus.publish))),
        subscribe=tuple(sorted(set(bus.subscribe))),
        call=tuple(sorted(set(bus.call))),
        store=None if store is None else store.size,
    )


def member_of(identity: Identity, spec: PluginSpec, state: str) -> Member:
    """Return a Plugin as the broker knows it.

    Args:
        identity: who it is.
        spec: an admitted one.
        state: why it does not answer; empty when it should.
    """
    return Member(identity.namespace, identity.name, identity.uid, grants_of(spec), state)


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
    for index, pattern in enumerate(bus.publish):
        if subjects.is_ours(pattern):
            yield Violation(
                f"{here}.publish[{index}]",
                "subjects that begin with 'crucible' are the controller's: choose another first word",
            )
    for index, method in enumerate(bus.call):
        if _CALL.fullmatch(method) is None:
            yield Violation(
                f"{here}.call[{index}]",
                f"{method!r} is no method of a plugin: write plugin.method, or plugin.* for all it has",
            )
