"""What the controller says: status, events, and that a Plugin may go."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from crucible.control.client import JSON_PATCH
from crucible.errors import Conflict, CrucibleError, NotFound
from crucible.model import names
from crucible.model.status import PluginStatus, format_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.control.backlog import Backlog
    from crucible.control.client import Client
    from crucible.model.decision import Event
    from crucible.model.plugin import Identity

log = logging.getLogger(__name__)


class ApiVoice:
    """Speaks through an API server."""

    def __init__(
        self, client: Client, component: str, now: Callable[[], float], backlog: Backlog | None = None
    ) -> None:
        """Prepare to speak.

        Args:
            client: of the API server.
            component: which part of ours Events come from.
            now: the clock, unix seconds.
            backlog: takes Events, so that nobody waits until one is recorded.
        """
        self._client = client
        self._component = component
        self._now = now
        self._backlog = backlog

    async def report(self, identity: Identity, status: PluginStatus) -> None:
        """Replace the status; a Plugin that is gone, or another of the same name, needs none."""
        body = {"metadata": {"uid": identity.uid}, "status": status_patch(status)}
        try:
            await self._client.tell(f"{_path(identity)}/status", body)
        except NotFound:
            log.debug("%s/%s: no status written: it is gone", identity.namespace, identity.name)
        except Conflict as error:
            log.info("%s/%s: no status written: %s", identity.namespace, identity.name, error)

    async def tell(self, identity: Identity, event: Event) -> None:
        """Record a Kubernetes Event."""
        record = partial(self._record, event_object(identity, event, self._component, self._now()))
        if self._backlog is None:
            await record()
        elif not self._backlog.put(identity.uid, record):
            _lost(identity.namespace, identity.name, event.reason, "too many wait to be told")

    async def _record(self, body: dict[str, Any]) -> None:
        about = body["involvedObject"]
        try:
            await self._client.create(f"/api/v1/namespaces/{about['namespace']}/events", body)
        except CrucibleError as error:
            _lost(about["namespace"], about["name"], body["reason"], error)

    async def hold(self, identity: Identity) -> None:
        """Add our finalizer to those the Plugin has."""
        meta = {
            "uid": identity.uid,
            "resourceVersion": identity.resource_version,
            "finalizers": [*identity.finalizers, names.FINALIZER],
        }
        await self._client.patch(_path(identity), {"metadata": meta})

    async def release(self, identity: Identity) -> None:
        """Remove our finalizer, whoever changed the list meanwhile."""
        try:
            plugin = await self._client.get(_path(identity))
            finalizers = plugin["metadata"].get("finalizers", [])
            if plugin["metadata"]["uid"] != identity.uid or names.FINALIZER not in finalizers:
                return
            place = f"/metadata/finalizers/{finalizers.index(names.FINALIZER)}"
            test = {"op": "test", "path": place, "value": names.FINALIZER}
            await self._client.patch(_path(identity), [test, {"op": "remove", "path": place}], JSON_PATCH)
        except NotFound:
            return


def _lost(namespace: str, name: str, reason: str, why: object) -> None:
    log.warning("%s/%s: event %s is lost: %s", namespace, name, reason, why)


def status_patch(status: PluginStatus) -> dict[str, Any]:
    """Return the merge patch that makes a stored status this one: what is unset is deleted."""
    said = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    empty: dict[str, Any] = {field.alias or name: None for name, field in PluginStatus.model_fields.items()}
    return empty | said


def event_object(identity: Identity, event: Event, component: str, now: float) -> dict[str, Any]:
    """Return a core/v1 Event about a Plugin."""
    moment = format_time(now)[:19] + "Z"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{identity.name}.", "namespace": identity.namespace},
        "involvedObject": {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "name": identity.name,
            "namespace": identity.namespace,
            "uid": identity.uid,
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:1024],
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": component,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


def _path(identity: Identity) -> str:
    return f"/apis/{names.API_VERSION}/namespaces/{identity.namespace}/{names.PLURAL}/{identity.name}"
