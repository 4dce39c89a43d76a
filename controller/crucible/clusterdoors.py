"""What stands behind plugins' doors on a cluster, as an operator sees it: the brokers that it speaks to.

Who is on the bus, and what each may do there, brokers read from the cluster themselves. From here they are
asked what only they know, and told what only the operator knows.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from crucible.bus import asking
from crucible.bus.liaison import NEWS
from crucible.bus.lines import Lines, Place
from crucible.core.bus import is_on_bus
from crucible.core.cloudevents import cloud_event, subject_of
from crucible.errors import NotFound, Unavailable
from crucible.model.door import Door
from crucible.runtimes.kubernetes import marks
from crucible.runtimes.kubernetes.reflector import Reflector
from crucible.runtimes.kubernetes.upkeep import collection

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from crucible.model.decision import Event
    from crucible.model.manifest import PluginSpec
    from crucible.model.plugin import Identity
    from crucible.model.status import PluginStatus
    from crucible.model.workload import Slot
    from crucible.runtimes.kubernetes.cluster import Cluster
    from crucible.runtimes.kubernetes.settings import DoorService

_EVENTS: Final = 4096
"""Events that may wait to be published; the same are Events of Kubernetes, which are not lost."""
_PATIENCE: Final = 15.0
"""Seconds for which a broker may be away before plugins are said to do without it."""

log = logging.getLogger(__name__)


class ClusterDoors:
    """The brokers of a cluster. Keeps the contract of a supervised Plugin's doorkeeper."""

    def __init__(self, cluster: Cluster, service: DoorService, may: Callable[[], bool]) -> None:
        """Begin with no broker.

        Args:
            cluster: its API server, which says where brokers are and who vouches for them.
            service: the brokers' Service.
            may: whether this process leads still.
        """
        self._cluster = cluster
        self._service = service
        self.lines = Lines(self._authority, may, self._hear, self._changed)
        path = collection("/apis/discovery.k8s.io/v1", "endpointslices", service.namespace)
        selector = f"kubernetes.io/service-name={service.name}"
        self._slices = Reflector(cluster, path, selector, self._moved)
        self._ring: Callable[[str], None] = lambda _: None
        self._on_bus: dict[str, tuple[str, str]] = {}
        self._notices: dict[tuple[str, str], tuple[float, tuple[str, ...]]] = {}
        self._events: asyncio.Queue[tuple[str, str, Mapping[str, Any]]] = asyncio.Queue(_EVENTS)
        self._away = ""
        self._doubt: asyncio.TimerHandle | None = None

    def works(self, ring: Callable[[str], None]) -> list[Coroutine[Any, Any, None]]:
        """Return what has to go on until cancelled; ``ring`` wakes the loop of a Plugin."""
        self._ring = ring
        return [self._slices.run(self._changed), self._publish_on()]

    async def close(self) -> None:
        """Hang up."""
        await self.lines.close()
        if self._doubt is not None:
            self._doubt.cancel()

    # What a supervised Plugin asks.

    def attend(self, identity: Identity, spec: PluginSpec | None, status: PluginStatus) -> None:
        """Note who is on the bus; what it may do there, and how it is, brokers see for themselves."""
        del status
        if spec is not None and is_on_bus(spec):
            self._on_bus[identity.uid] = (identity.namespace, identity.name)
        else:
            self.forget(identity.uid)

    async def configure(self, plugin_uid: str, slot: Slot, config: str) -> str:
        """Call an instance on the bus with its new configuration.

        Raises:
            Unavailable: it, or a broker, cannot be called now.
        """
        return await asking.configure(self.lines, plugin_uid, slot, config)

    async def open_calls(self, plugin_uid: str, slots: Sequence[Slot]) -> Mapping[int, int | None]:
        """Ask how many calls instances have that are given no new ones; None where nobody can say."""
        return await asking.open_calls(self.lines, plugin_uid, slots)

    def forget(self, plugin_uid: str) -> None:
        """Say that a Plugin is gone."""
        key = self._on_bus.pop(plugin_uid, None)
        if key is not None:
            self._notices.pop(key, None)

    def notices(self, plugin_uid: str) -> tuple[str, ...]:
        """Return what brokers had to say of a Plugin lately."""
        key = self._on_bus.get(plugin_uid)
        said_at, lines = self._notices.get(key, (0.0, ())) if key is not None else (0.0, ())
        return lines if asyncio.get_running_loop().time() - said_at < NEWS else ()

    def lacks(self, plugin_uid: str) -> tuple[str, ...]:
        """Say to who is on the bus that the operator cannot speak there."""
        return (self._away,) if self._away and plugin_uid in self._on_bus else ()

    def publish(self, identity: Identity, event: Event, now: float) -> None:
        """Publish an event to whoever listens; where too many wait already, this one is not heard."""
        body = cloud_event(identity, event, str(uuid.uuid4()), now)
        with suppress(asyncio.QueueFull):
            self._events.put_nowait((identity.namespace, subject_of(identity, event), body))

    async def _publish_on(self) -> None:
        while True:
            namespace, subject, body = await self._events.get()
            with suppress(Unavailable):  # the same is a Kubernetes Event, which is not lost
                await self.lines.publish(namespace, subject, body)

    # What brokers, and the cluster of them, say.

    def _hear(self, words: Mapping[str, Any]) -> None:
        match words:
            case {"notices": list(lines), "namespace": str(namespace), "plugin": str(plugin)}:
                loop, key = asyncio.get_running_loop(), (namespace, plugin)
                for uid in [uid for uid, each in self._on_bus.items() if each == key]:
                    self._notices[key] = (loop.time(), tuple(map(str, lines)))
                    self._ring(uid)
                    loop.call_later(NEWS, self._ring, uid)
            case _:
                log.warning("a broker says what is not understood")

    def _moved(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        del before, after
        found = self._slices.objects
        self.lines.become(
            {place for each in found for place in places_of(each)},
            {place for each in found for place in places_of(each, ready=False)},
        )

    async def _authority(self) -> str:
        """Return who vouches for brokers, as it is told where they are: who may write there is trusted."""
        path = f"{collection('/api/v1', 'configmaps', self._service.namespace)}/{marks.AUTHORITY}"
        try:
            found = await self._cluster.get(path)
        except NotFound:
            raise Unavailable(
                f"ConfigMap {marks.AUTHORITY} of {self._service.namespace} is not there"
            ) from None
        return str((found.get("data") or {}).get(marks.AUTHORITY_KEY, ""))

    @property
    def trouble(self) -> str:
        """Why the operator cannot speak on the bus; empty while it can."""
        return self._slices.problem or self.lines.trouble

    def _changed(self) -> None:
        """Tell Plugins on the bus that the operator cannot speak there, if that goes on; or can again."""
        if not self.trouble:
            if self._doubt is not None:
                self._doubt.cancel()
                self._doubt = None
            self._say("")
        elif self._doubt is None:
            self._doubt = asyncio.get_running_loop().call_later(_PATIENCE, self._doubtless)

    def _doubtless(self) -> None:
        self._doubt = None
        if self.trouble:
            self._say(f"the operator cannot speak on the bus: {self.trouble}")
            self._changed()

    def _say(self, away: str) -> None:
        if away != self._away:
            self._away = away
            for uid in tuple(self._on_bus):
                self._ring(uid)


def places_of(found: Mapping[str, Any], *, ready: bool = True) -> set[Place]:
    """Return where brokers are that let plugins in, or do not, as an EndpointSlice of their Service says."""
    ports = [each["port"] for each in found.get("ports") or () if each.get("name") == Door.BUS]
    return {
        Place(address, port)
        for port in ports
        for each in found.get("endpoints") or ()
        if ((each.get("conditions") or {}).get("ready") is not False) is ready
        for address in each.get("addresses") or ()
    }
