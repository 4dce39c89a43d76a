"""Makes networks and relays before the first instance needs them, and removes them after the last."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from docker import errors

from crucible.errors import Conflict, CrucibleError, Unavailable
from crucible.model.door import DOORS, Door
from crucible.runtimes.docker import labels as marks
from crucible.runtimes.docker import network as bodies
from crucible.runtimes.docker.network import cut_off
from crucible.runtimes.docker.ownership import (
    GONE,
    IN_USE,
    clear_container,
    drop_network,
    have_network,
    tolerate,
)
from crucible.runtimes.docker.routes import Routes
from crucible.runtimes.doors import Doors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from crucible.model.workload import Slot
    from crucible.runtimes.docker.body import Image
    from crucible.runtimes.docker.engine import Engine

_log = logging.getLogger(__name__)


class Relays:
    """The networks and relays of one control plane.

    Attributes:
        endpoints: where each plugin that listens can be reached, by uid.
        routes: to which instances of it.
    """

    def __init__(  # noqa: PLR0913 - where, whose, and three things it asks
        self,
        engine: Engine,
        control_plane: str,
        place: Path,
        *,
        image: Callable[[], Awaitable[Image]],
        needed: Callable[[str], bool],
        changed: Callable[[str], None],
    ) -> None:
        """Begin to know of none.

        Args:
            engine: where they are.
            control_plane: whose they are.
            place: folder for what relays are shown.
            image: finds what relays are made from.
            needed: tells whether a plugin, by uid, has instances.
            changed: called with a plugin's uid when it can be reached elsewhere than before.
        """
        self.endpoints: dict[str, tuple[str, ...]] = {}
        self._engine = engine
        self._control_plane = control_plane
        self._place = place
        self.routes = Routes(place)
        self._routed: set[str] = set()
        self._doors: dict[str, Doors] = {}
        self._image = image
        self._needed = needed
        self._changed = changed
        self._ports: dict[str, tuple[int, ...]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._edge = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether one is being made or removed right now."""
        return any(lock.locked() for lock in self._locks.values())

    async def ensure(self, plugin_uid: str, ports: tuple[int, ...]) -> str:
        """Return the name of a plugin's network, in which its relay for these ports, or ``OUT``, waits.

        Raises:
            Unavailable: the engine does not answer, or has no addresses left.
        """
        async with self._lock(plugin_uid):
            if self._ports.get(plugin_uid) != ports:
                await self._make(plugin_uid, ports)
        return bodies.network_name(self._control_plane, plugin_uid)

    async def route(self, plugin_uid: str, slots: Sequence[Slot]) -> None:
        """Have a plugin's relay hand new connections to these instances; none: to all.

        Raises:
            Unavailable: the engine does not answer, or nothing can be written.
        """
        async with self._lock(plugin_uid):
            ports = self._ports.get(plugin_uid, ())
            if slots and ports and plugin_uid not in self._routed:
                await self._make(plugin_uid, ports)  # it is of an earlier release, and looks nowhere
            try:
                self.routes.put(plugin_uid, slots)
            except OSError as error:
                raise Unavailable(f"a relay cannot be told whom to reach: {error}") from error

    async def remove(self, plugin_uid: str) -> None:
        """Remove what was made for a plugin that has no instances; nothing where nothing was.

        Raises:
            Unavailable: the engine does not answer.
        """
        async with self._lock(plugin_uid):
            if plugin_uid not in self._ports or self._needed(plugin_uid):
                return
            try:
                await self._engine.call(self._remove, plugin_uid, last=len(self._ports) == 1)
            except errors.APIError as error:
                raise Unavailable(f"the engine keeps the network of a plugin: {error.explanation}") from error
            self._ports.pop(plugin_uid, None)
            self.endpoints.pop(plugin_uid, None)
            if plugin_uid in self._doors:
                self._doors.pop(plugin_uid).close()
            self.routes.forget(plugin_uid)
            shutil.rmtree(self._place / plugin_uid, ignore_errors=True)

    def doors(self, plugin_uid: str) -> Doors | None:
        """Return the doors of a plugin's relay; None where none lets it out."""
        return self._doors.get(plugin_uid)

    def close(self) -> None:
        """Let go of the doors' sockets."""
        for doors in self._doors.values():
            doors.close()

    async def survey(self) -> frozenset[str]:
        """Learn which relays there are; mend those that are needed, remove those that are not.

        Return ids and names of the networks that were there before.
        """
        before = dict(self._ports)
        await self._engine.call(self._drop_doubles)
        relays, networks, edge, there = await self._engine.call(self._look)
        for plugin_uid in sorted(before.keys() | relays.keys() | networks.keys()):
            if self._lock(plugin_uid).locked() or self._ports.get(plugin_uid) != before.get(plugin_uid):
                continue  # it was made or removed while the engine was asked
            relay = relays.get(plugin_uid)
            ports = bodies.ports_of(relay["Labels"]) if relay else networks.get(plugin_uid, ())
            reached = relay is not None and (bodies.endpoints_of(relay) or ports == (bodies.OUT,))
            if relay is not None and relay["State"] == "running" and reached and not cut_off(relay, there):
                self._learn(plugin_uid, ports, relay)
            else:
                # Half made or broken: known, so that it is removed or made anew like the others.
                self._ports[plugin_uid] = ()
                self.endpoints.pop(plugin_uid, None)
                ports = before.get(plugin_uid) or ports
            await self._settle(plugin_uid, ports)
        if edge and not self._ports and not self.busy:
            # Of a controller that died between the last relay and this.
            await self._engine.call(self._drop_edge)
        return there

    async def _settle(self, plugin_uid: str, ports: tuple[int, ...]) -> None:
        """Bring one to what it should be; one that cannot be is tried again at the next survey."""
        try:
            if not self._needed(plugin_uid):
                await self.remove(plugin_uid)
            elif ports:
                await self.ensure(plugin_uid, ports)
        except CrucibleError as error:
            _log.warning("the way to plugin %s cannot be mended yet: %s", plugin_uid, error)

    def _learn(self, plugin_uid: str, ports: tuple[int, ...], relay: Mapping[str, Any]) -> None:
        found = bodies.endpoints_of(relay)
        self._ports[plugin_uid] = ports
        if relay["Labels"].get(bodies.ROUTED):
            self._routed.add(plugin_uid)
        if bodies.OUT in ports:
            self._door_of(plugin_uid)
        if self.endpoints.get(plugin_uid) != found:
            self.endpoints[plugin_uid] = found
            self._changed(plugin_uid)

    async def _make(self, plugin_uid: str, ports: tuple[int, ...]) -> None:
        image = await self._image()
        if bodies.OUT in ports:
            self._door_of(plugin_uid).open()
        try:
            entry = await self._engine.call(self._build, plugin_uid, ports, image)
        except errors.APIError as error:
            await self._engine.call(self._drop_doubles)
            raise Unavailable(f"the Docker engine makes no network for it: {error.explanation}") from error
        self._learn(plugin_uid, ports, entry)

    def _door_of(self, plugin_uid: str) -> Doors:
        """Return the doors of a relay, shut where they are not open yet."""
        folder = self._place / plugin_uid
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        return self._doors.setdefault(plugin_uid, Doors(folder, (Door.EGRESS,)))

    def _lock(self, plugin_uid: str) -> asyncio.Lock:
        return self._locks.setdefault(plugin_uid, asyncio.Lock())

    def _build(self, plugin_uid: str, ports: tuple[int, ...], image: Image) -> dict[str, Any]:
        """Make all of it anew but what is there; runs in a thread of the pool."""
        client = self._engine.client
        own = bodies.network_name(self._control_plane, plugin_uid)
        with self._edge:  # engines before 25 make two of one name, when asked at once, and then find neither
            have_network(client, bodies.edge_arguments(self._control_plane))
        have_network(client, bodies.network_arguments(self._control_plane, plugin_uid, ports))
        name = bodies.relay_name(self._control_plane, plugin_uid)
        clear_container(client, name, bodies.relay_labels(self._control_plane, plugin_uid))
        out, published = bodies.OUT in ports, ports != (bodies.OUT,)
        shown = {DOORS: self._doors[plugin_uid].path} if out else {}
        if published:
            shown[bodies.ROUTES] = str(self.routes.folder(plugin_uid))
        body = bodies.relay_body(self._control_plane, plugin_uid, ports, image, shown)
        made = client.create_container_from_config(body, name)  # type: ignore[no-untyped-call]
        if published:
            client.connect_container_to_network(made["Id"], own, aliases=[bodies.PROXY] if out else None)
        client.start(made["Id"])
        if out:
            waiting = client.exec_create(made["Id"], [*image.before, "-c", bodies.WAIT])
            client.exec_start(waiting["Id"])  # the way out is there before the plugin's first instruction
        for entry in client.containers(filters={"id": made["Id"]}):
            found: dict[str, Any] = entry
            return found
        raise Unavailable(f"the relay {name} ended at once: see the engine's log")

    def _remove(self, plugin_uid: str, *, last: bool) -> None:
        client, plane = self._engine.client, self._control_plane
        with contextlib.suppress(Conflict):  # what is somebody else's stays
            clear_container(
                client, bodies.relay_name(plane, plugin_uid), bodies.relay_labels(plane, plugin_uid)
            )
        with contextlib.suppress(Conflict):
            drop_network(client, bodies.network_arguments(plane, plugin_uid, ()), GONE)
        if last:
            self._drop_edge()

    def _drop_edge(self) -> None:
        """Remove the network of all relays. Another plugin's relay may be on its way in; then it stays."""
        with self._edge, contextlib.suppress(Conflict):
            drop_network(self._engine.client, bodies.edge_arguments(self._control_plane), GONE | IN_USE)

    def _drop_doubles(self) -> None:
        """Remove all but one of networks that bear one name; by that, none of them could be used."""
        client = self._engine.client
        mark = f"{marks.CONTROL_PLANE}={self._control_plane}"
        with self._edge:
            ours = f"crucible-{self._control_plane}-"
            listed = client.networks(filters={"label": mark})
            found = [entry for entry in listed if entry["Name"].startswith(ours)]
            left = Counter(entry["Name"] for entry in found)
            for entry in found:
                # One that is in use stays, and the others of its name go.
                if left[entry["Name"]] > 1 and tolerate(IN_USE, client.remove_network, entry["Id"]):
                    left[entry["Name"]] -= 1

    def _look(self) -> tuple[dict[str, dict[str, Any]], dict[str, tuple[int, ...]], bool, frozenset[str]]:
        """Return relays, as listed, and the ports of networks, by plugin; only what has the name we give.

        And whether the network of all relays is there, and ids and names of all networks.
        """
        mark = f"{marks.CONTROL_PLANE}={self._control_plane}"
        client, plane = self._engine.client, self._control_plane
        relays = {
            uid: entry
            for entry in client.containers(all=True, filters={"label": [mark, f"{marks.ROLE}=relay"]})
            if (uid := (entry.get("Labels") or {}).get(marks.PLUGIN_UID, ""))
            and f"/{bodies.relay_name(plane, uid)}" in entry["Names"]
        }
        listed = client.networks(filters={"label": mark})
        networks = {
            uid: bodies.ports_of(entry["Labels"])
            for entry in listed
            if entry["Labels"].get(marks.ROLE) == "network"
            and (uid := (entry.get("Labels") or {}).get(marks.PLUGIN_UID, ""))
            and entry["Name"] == bodies.network_name(plane, uid)
        }
        there = frozenset(word for entry in listed for word in (entry["Id"], entry["Name"]))
        return relays, networks, bodies.edge_name(plane) in there, there
