"""The kopf operator: hosts one supervise coroutine for each Plugin, and wakes it.

Nothing here decides. The daemon runs the loop, the event handler hands it the newest object, and the
runtime's own news wakes it. kopf is imported nowhere else.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import kopf

from crucible.loop import supervise
from crucible.model import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.control.kubeconfig import Endpoint
    from crucible.loop import Ports


_DRAIN_SECONDS = 5.0


class Inbox:
    """The newest object of every Plugin, and the bell that wakes its loop."""

    def __init__(self) -> None:
        self._bells: dict[str, asyncio.Event] = {}
        self._objects: dict[str, Mapping[str, Any]] = {}
        self.gone = asyncio.Event()
        """Set when a Plugin was dropped, until whoever waits for it clears it."""

    def put(self, plugin: Mapping[str, Any]) -> None:
        """Keep an object and ring its bell."""
        uid = plugin["metadata"]["uid"]
        self._objects[uid] = plugin
        self.ring(uid)

    def newest(self, uid: str) -> Mapping[str, Any]:
        """Return the object put last."""
        return self._objects[uid]

    def bell(self, uid: str) -> asyncio.Event:
        """Return the bell of one Plugin."""
        return self._bells.setdefault(uid, asyncio.Event())

    def ring(self, uid: str) -> None:
        """Wake the loop of one Plugin, if it has one."""
        if uid in self._bells:
            self._bells[uid].set()

    def drop(self, uid: str) -> None:
        """Forget a Plugin whose loop has ended."""
        self._bells.pop(uid, None)
        self._objects.pop(uid, None)
        self.gone.set()

    def known(self) -> frozenset[str]:
        """Return the uids of all Plugins seen and not dropped."""
        return frozenset(self._objects)


async def operate(
    endpoint: Endpoint, ports: Ports, inbox: Inbox, *, ready: asyncio.Event, stop: asyncio.Event
) -> None:
    """Run until told to stop. Instances go on running afterwards.

    Args:
        endpoint: the API server, and whom to be there.
        ports: what the loops touch.
        inbox: shared with whoever has news of instances.
        ready: set when the operator watches.
        stop: set to end it.
    """
    tasks = await kopf.spawn_tasks(
        registry=_registry(endpoint, ports, inbox, stop),
        settings=_settings(),
        standalone=True,
        clusterwide=True,
        ready_flag=ready,
    )
    stopping = asyncio.create_task(stop.wait())
    try:
        ended, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await _drain(inbox)
    finally:
        # kopf.operator() would now wait for, and then cancel, every task of this event loop, the API
        # server's included. Its own tasks are all that has to end.
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)
    for task in ended - {stopping}:
        task.result()


async def _drain(inbox: Inbox) -> None:
    """Let every loop see that the operator stops, and finish the turn it is in."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while inbox.known():
                inbox.gone.clear()
                for uid in inbox.known():
                    inbox.ring(uid)
                await inbox.gone.wait()


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False  # events are ours, each with the reason that was decided
    settings.persistence.finalizer = names.FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"kopf.{names.GROUP}")
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=f"kopf.{names.GROUP}")
    settings.background.cancellation_polling = 2.0
    settings.queueing.exit_timeout = 0.1  # by then every loop has ended
    settings.watching.server_timeout = 300
    settings.networking.request_timeout = 30
    return settings


def _registry(endpoint: Endpoint, ports: Ports, inbox: Inbox, stop: asyncio.Event) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    where: dict[str, Any] = {
        "group": names.GROUP,
        "version": names.VERSION,
        "plural": names.PLURAL,
        "registry": registry,
    }

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:  # noqa: ANN401 - kopf hands over whatever it has
        return connection_of(endpoint)

    @kopf.on.event(**where)
    def notice(body: kopf.Body, **_: Any) -> None:  # noqa: ANN401
        inbox.put(dict(body))

    @kopf.daemon(id="supervise", **where)
    async def keep(body: kopf.Body, **_: Any) -> None:  # noqa: ANN401
        uid = body["metadata"]["uid"]
        inbox.put(dict(body))
        try:
            await supervise(lambda: inbox.newest(uid), ports, inbox.bell(uid), stop.is_set)
        finally:
            inbox.drop(uid)

    return registry


def connection_of(endpoint: Endpoint) -> kopf.ConnectionInfo:
    """Say in kopf's words where the API server is."""
    return kopf.ConnectionInfo(
        server=endpoint.server,
        ca_data=endpoint.ca or None,
        token=endpoint.token or None,
        scheme="Bearer" if endpoint.token else None,
        certificate_data=endpoint.certificate or None,
        private_key_data=endpoint.key or None,
        default_namespace=endpoint.namespace,
    )
