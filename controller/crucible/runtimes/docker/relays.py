"""Makes networks and relays before the first instance needs them, and removes them after the last."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from docker import errors

from crucible.errors import Unavailable
from crucible.runtimes.docker import labels as marks
from crucible.runtimes.docker import network as bodies

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crucible.runtimes.docker.body import Image
    from crucible.runtimes.docker.engine import Engine

_THERE_ALREADY: Final = frozenset({403, 409})
_GONE: Final = frozenset({304, 404, 409})


class Relays:
    """The networks and relays of one control plane.

    Attributes:
        endpoints: where each plugin that listens can be reached, by uid.
    """

    def __init__(self, engine: Engine, control_plane: str) -> None:
        self.endpoints: dict[str, tuple[str, ...]] = {}
        self._engine = engine
        self._control_plane = control_plane
        self._ports: dict[str, tuple[int, ...]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def ensure(self, plugin_uid: str, ports: tuple[int, ...], image: Image) -> str:
        """Return the name of a plugin's network, in which its relay for these ports waits.

        Raises:
            Unavailable: the engine does not answer, or has no addresses left.
        """
        async with self._locks.setdefault(plugin_uid, asyncio.Lock()):
            if self._ports.get(plugin_uid) != ports:
                await self._make(plugin_uid, ports, image)
        return bodies.network_name(self._control_plane, plugin_uid)

    async def remove(self, plugin_uid: str) -> None:
        """Remove what was made for a plugin; nothing where nothing was.

        Raises:
            Unavailable: the engine does not answer.
        """
        async with self._locks.setdefault(plugin_uid, asyncio.Lock()):
            if self._ports.pop(plugin_uid, None) is None:
                return
            self.endpoints.pop(plugin_uid, None)
            await self._engine.call(self._remove, plugin_uid)
        self._locks.pop(plugin_uid, None)

    async def survey(self, entries: list[dict[str, Any]], wanted: set[str]) -> None:
        """Learn which relays there are, and remove those of plugins that have no instance.

        Args:
            entries: every container of this control plane, as listed.
            wanted: uids of plugins that have one.
        """
        self._ports.clear()
        self.endpoints.clear()
        for entry in entries:
            if entry["Labels"].get(marks.ROLE) == "relay":
                self._learn(entry)
        networks = await self._engine.call(self._networks)
        for network in networks:
            # One without a relay is half made: it is known, so that it is removed like the others.
            self._ports.setdefault(network, ())
        for plugin_uid in self._ports.keys() - wanted:
            await self.remove(plugin_uid)

    def _learn(self, entry: Mapping[str, Any]) -> None:
        labels = entry["Labels"]
        name = bodies.relay_name(self._control_plane, labels.get(marks.PLUGIN_UID, ""))
        if f"/{name}" not in entry["Names"]:
            return
        plugin_uid = labels[marks.PLUGIN_UID]
        found = bodies.endpoints_of(entry)
        if entry["State"] == "running" and found:
            words = labels.get(bodies.PORTS, "").split(",")
            self._ports[plugin_uid] = tuple(int(word) for word in words if word.isdecimal())
            self.endpoints[plugin_uid] = found
        else:
            self._ports[plugin_uid] = ()

    async def _make(self, plugin_uid: str, ports: tuple[int, ...], image: Image) -> None:
        try:
            entry = await self._engine.call(self._build, plugin_uid, ports, image)
        except errors.APIError as error:
            raise Unavailable(f"the Docker engine makes no network for it: {error.explanation}") from error
        self._ports[plugin_uid] = ports
        self.endpoints[plugin_uid] = bodies.endpoints_of(entry)

    def _build(self, plugin_uid: str, ports: tuple[int, ...], image: Image) -> dict[str, Any]:
        """Make all of it anew but what is there; runs in a thread of the pool."""
        client = self._engine.client
        own = bodies.network_name(self._control_plane, plugin_uid)
        for network in (
            bodies.edge_arguments(self._control_plane),
            bodies.network_arguments(self._control_plane, plugin_uid),
        ):
            _tolerate(_THERE_ALREADY, client.create_network, **network)
        name = bodies.relay_name(self._control_plane, plugin_uid)
        _tolerate(_GONE, client.remove_container, name, force=True)
        body = bodies.relay_body(self._control_plane, plugin_uid, ports, image)
        made = client.create_container_from_config(body, name)  # type: ignore[no-untyped-call]
        client.connect_container_to_network(made["Id"], own)
        client.start(made["Id"])
        (entry,) = client.containers(filters={"id": made["Id"]})
        found: dict[str, Any] = entry
        return found

    def _remove(self, plugin_uid: str) -> None:
        client = self._engine.client
        name = bodies.relay_name(self._control_plane, plugin_uid)
        _tolerate(_GONE, client.remove_container, name, force=True)
        _tolerate(_GONE, client.remove_network, bodies.network_name(self._control_plane, plugin_uid))
        if not self._ports:
            _tolerate(_GONE, client.remove_network, bodies.edge_name(self._control_plane))

    def _networks(self) -> list[str]:
        found = self._engine.client.networks(
            filters={"label": [f"{marks.CONTROL_PLANE}={self._control_plane}", f"{marks.ROLE}=network"]}
        )
        return [
            uid
            for entry in found
            if (uid := (entry.get("Labels") or {}).get(marks.PLUGIN_UID, ""))
            and entry["Name"] == bodies.network_name(self._control_plane, uid)
        ]


def _tolerate(codes: frozenset[int], function: Callable[..., object], *words: str, **options: Any) -> None:  # noqa: ANN401
    """Ask for what may be so already: answers with these codes are as good as success."""
    try:
        function(*words, **options)
    except errors.APIError as error:
        if error.status_code not in codes:
            raise
