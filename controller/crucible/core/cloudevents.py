"""The controller's events as CloudEvents 1.0, for the bus: the same that people read as Kubernetes Events."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from crucible.core.subjects import OURS
from crucible.model import names
from crucible.model.status import format_time

if TYPE_CHECKING:
    from crucible.model.decision import Event
    from crucible.model.plugin import Identity

_NO_WORD: Final = re.compile(r"[^A-Za-z0-9_-]")


def subject_of(identity: Identity, event: Event) -> str:
    """Return where an event is published: ``crucible.events.PLUGIN.REASON``, in the Plugin's namespace."""
    return f"{OURS}.events.{_NO_WORD.sub('-', identity.name)}.{_NO_WORD.sub('-', event.reason)}"


def cloud_event(identity: Identity, event: Event, ident: str, now: float) -> dict[str, Any]:
    """Return a CloudEvent in its JSON format.

    Args:
        identity: of the Plugin it is about.
        event: what happened.
        ident: unique for every event.
        now: unix seconds.
    """
    return {
        "specversion": "1.0",
        "id": ident,
        "source": f"/apis/{names.API_VERSION}/namespaces/{identity.namespace}/{names.PLURAL}/{identity.name}",
        "type": f"dev.crucible.plugin.{event.reason}",
        "subject": identity.name,
        "time": format_time(now),
        "datacontenttype": "application/json",
        "data": {
            "plugin": identity.name,
            "namespace": identity.namespace,
            "uid": identity.uid,
            "generation": identity.generation,
            "level": event.type,
            "reason": event.reason,
            "message": event.message,
        },
    }
