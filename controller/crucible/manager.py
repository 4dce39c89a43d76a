"""``PluginManager``: run plugins from a program of your own. The manual is ``docs/embedding.md``."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import yaml

from crucible.bus.host import CallFailed, HostBus, door_beside
from crucible.bus.host import Client as Bus
from crucible.bus.wire import Priority
from crucible.control.client import Client
from crucible.control.kubeconfig import load_endpoint
from crucible.embedded import EmbeddedPlane
from crucible.errors import Conflict, InvalidInput, InvalidManifest, NotFound, Unavailable
from crucible.manifests.folder import read_contents
from crucible.manifests.resources import PLUGIN, RESOURCES
from crucible.manifests.wanted import given_twice, wanted_of
from crucible.model import names
from crucible.model.door import Door, socket_name
from crucible.model.status import format_time
from crucible.outside import RELEASE, ClusterBus
from crucible.settings import Places, default_root
from crucible.standing import Message, PluginState, bytes_of, value_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from crucible.control.kubeconfig import Endpoint
    from crucible.errors import Violation
    from crucible.manifests.wanted import Wanted

FIELD_MANAGER: Final = "crucible-embedding"
LASTING: Final = 0.5
"""Seconds for which a plugin must stay ready to be called so: one that dies at once is, for a moment."""
BUS_PATIENCE: Final = 10.0
"""Seconds for the broker to start, or to come back."""
_PAUSE: Final = 0.1
_NOBODYS: Final = "-"
"""A method that no plugin has."""


class PluginManager:
    """Plugins, from a program of your own. Use as an async context manager.

    Without a kubeconfig it runs a local control plane in this program, or uses the one that runs on the same
    state folder already. Leaving the block ends that control plane and no plugin: the next one adopts them.
    """

    def __init__(  # noqa: PLR0913 - each is named
        self,
        *,
        state: Path | str | None = None,
        runtime: str = "process",
        kubeconfig: Path | str | None = None,
        context: str | None = None,
        namespace: str = "default",
        release: str = RELEASE,
        backbone: Path | str | None = None,
    ) -> None:
        """Prepare; nothing starts yet.

        Args:
            state: folder of the local control plane; None: the usual one.
            runtime: what makes instances there: ``process`` or ``docker``.
            kubeconfig: of a cluster, or of a control plane that runs elsewhere; then nothing is started.
            context: of that file; None: its current one.
            namespace: where to act.
            release: of a cluster, the namespace of its brokers, through one of which calls and messages go.
            backbone: file that says how the local control plane is joined to other machines; None: not.
        """
        self.namespace = namespace
        self._places = Places(Path(state).absolute() if state is not None else default_root())
        self._runtime = runtime
        self._backbone = None if backbone is None else Path(backbone).absolute()
        self._kubeconfig = None if kubeconfig is None else Path(kubeconfig)
        self._context = context
        self._release = release
        self._stack = AsyncExitStack()
        self._line = AsyncExitStack()
        self._client: Client | None = None
        self._bus: Bus | None = None
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        try:
            endpoint = await self._endpoint()
            self._client = await self._stack.enter_async_context(Client(endpoint))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._line.aclose()
        await self._stack.aclose()

    async def _endpoint(self) -> Endpoint:
        if self._kubeconfig is not None:
            return load_endpoint(self._kubeconfig, self._context)
        from crucible.bootstrap import UpOptions  # noqa: PLC0415 - a second; a cluster needs none of it

        plane = EmbeddedPlane(
            UpOptions(self._places, runtime=self._runtime, host_always=True, backbone=self._backbone)
        )
        try:
            kubeconfig = await plane.start()
        except Conflict:
            return load_endpoint(self._places.kubeconfig)  # another process runs one here
        self._stack.push_async_callback(plane.stop)
        return load_endpoint(kubeconfig)

    # Plugins.

    def discover(self, folder: Path | str) -> tuple[Mapping[str, Any], ...]:
        """Return every Plugin that manifests below a folder describe, checked; nothing is applied.

        Raises:
            InvalidManifest: with every violation of every file.
        """
        return tuple(one.body for one in self._read(Path(folder)) if one.resource is PLUGIN)

    async def apply(self, manifest: Mapping[str, Any] | Path | str) -> tuple[PluginState, ...]:
        """Create plugins or change them.

        Args:
            manifest: one manifest, or the path of a file or folder of them.

        Raises:
            InvalidManifest: with every violation; then nothing was changed.
        """
        if isinstance(manifest, (str, Path)):
            wanted = await asyncio.to_thread(self._read, Path(manifest))
        else:
            data = yaml.safe_dump(dict(manifest)).encode()
            wanted = _checked([("the manifest", data)], self.namespace)
        sent = [(await self._api.apply(one.path, one.body, FIELD_MANAGER))[1] for one in wanted]
        return tuple(
            PluginState.of(body) for one, body in zip(wanted, sent, strict=True) if one.resource is PLUGIN
        )

    def _read(self, place: Path) -> tuple[Wanted, ...]:
        place = place.absolute()
        if not place.is_dir():
            if not place.is_file():
                raise NotFound(f"{place}: there is no such file or folder")
            return _checked([(place, place.read_bytes())], self.namespace)
        contents = read_contents(place)
        unreadable = [one for one in contents if one.data is None]
        if unreadable:
            raise InvalidInput(f"{unreadable[0].path}: {unreadable[0].problem}")
        return _checked([(one.path, one.data or b"") for one in contents], self.namespace)

    async def get(self, name: str) -> PluginState:
        """Return how a plugin is.

        Raises:
            NotFound: there is none of that name.
        """
        return PluginState.of(await self._api.get(self._path(name)))

    async def plugins(self) -> tuple[PluginState, ...]:
        """Return how all plugins of the namespace are, by name."""
        found = (await self._api.get(PLUGIN.collection(self.namespace)))["items"]
        return tuple(sorted(map(PluginState.of, found), key=lambda one: one.name))

    async def wait(
        self,
        name: str,
        settled: Callable[[PluginState], bool] = lambda plugin: plugin.ready,
        *,
        seconds: float = 60.0,
    ) -> PluginState:
        """Wait until a plugin is ready, or otherwise as asked, and stays so for half a second.

        Raises:
            Unavailable: it is not, in time; the message says what it is instead.
        """
        end, since = time.monotonic() + seconds, None
        while True:
            plugin = await self.get(name)
            now = time.monotonic()
            if settled(plugin):
                since = since or now
                if now - since >= LASTING:
                    return plugin
            else:
                since = None
            if now > end:
                why = f"{plugin.phase}, {plugin.reason}: {plugin.message}"
                raise Unavailable(f"{name} is {why}; waited {seconds:g} s")
            await asyncio.sleep(_PAUSE)

    async def start(self, name: str) -> None:
        """Run a plugin that was stopped."""
        await self._api.patch(self._path(name), {"spec": {"suspend": False}})

    async def stop(self, name: str) -> None:
        """Stop every instance of a plugin, and keep everything else."""
        await self._api.patch(self._path(name), {"spec": {"suspend": True}})

    async def freeze(self, name: str) -> None:
        """Hold every instance of a plugin still, where it is."""
        marked = {names.FROZEN: format_time(time.time())}
        await self._api.patch(self._path(name), {"metadata": {"annotations": marked}})

    async def thaw(self, name: str) -> None:
        """Let a plugin that is held still go on."""
        await self._api.patch(self._path(name), {"metadata": {"annotations": {names.FROZEN: None}}})

    async def restart(self, name: str) -> None:
        """Replace every instance of a plugin; ends quarantine."""
        marked = {names.RESTARTED_AT: format_time(time.time())}
        await self._api.patch(self._path(name), {"metadata": {"annotations": marked}})

    async def delete(self, name: str, *, seconds: float = 60.0) -> None:
        """Stop a plugin and remove all that was made for it; return when it is gone.

        Raises:
            NotFound: there is none of that name.
            Unavailable: it is not gone in time, and goes on going.
        """
        await self._api.delete(self._path(name))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                await self.get(name)
            except NotFound:
                return
            await asyncio.sleep(_PAUSE)
        raise Unavailable(f"{name} is not gone after {seconds:g} s")

    async def logs(self, name: str, *, lines: int = 100) -> Mapping[str, str]:
        """Return the last lines that each instance of a plugin wrote, by the instance's name."""
        plugin = await self.get(name)
        texts = {}
        for instance in plugin.instances:
            path = f"/api/v1/namespaces/{plugin.namespace}/pods/{instance}/log"
            texts[instance] = await self._api.text(path, {"tailLines": str(lines)})
        return texts

    # The bus.

    async def call(
        self,
        name: str,
        payload: Any = None,  # noqa: ANN401 - whatever has a JSON form
        *,
        timeout: float = 30.0,  # noqa: ASYNC109 - it is the call's deadline, which the broker keeps
        priority: Priority = Priority.NORMAL,
    ) -> Any:  # noqa: ANN401 - what the plugin answers
        """Call ``plugin.method`` and return what it answers: the JSON value, or bytes where it is none.

        Raises:
            NotFound: there is no such plugin or method.
            InvalidInput: it is not allowed, or too large.
            CallFailed: it was tried, and failed, was late, or the plugin is not there just now.
            Unavailable: the bus is not there.
        """
        bus = await self._connected()
        return value_of((await bus.call(name, bytes_of(payload), timeout=timeout, priority=priority)).payload)

    async def wait_on_bus(self, name: str, *, seconds: float = 60.0) -> None:
        """Wait until a plugin has connected to the bus: one that runs needs a moment to.

        Raises:
            NotFound: there is none of that name.
            CallFailed: it did not, in time; the message says what keeps it.
        """
        await self.get(name)
        end = time.monotonic() + seconds
        while True:
            try:
                with contextlib.suppress(NotFound):  # it is there, and offers no such method
                    await self.call(f"{name}.{_NOBODYS}")
            except CallFailed as error:
                if not error.retry or time.monotonic() > end:
                    raise
            else:
                return
            await asyncio.sleep(_PAUSE)

    async def publish(self, subject: str, payload: Any = None) -> int:  # noqa: ANN401 - the same
        """Tell whoever listens to a subject; return how many subscriptions that reached."""
        return await (await self._connected()).publish(subject, bytes_of(payload))

    async def subscribe(self, pattern: str) -> AsyncIterator[Message]:
        """Listen from now on to subjects that fit; iterate over what this returns."""
        frames = await (await self._connected()).subscribe(pattern)
        return (Message.of(frame) async for frame in frames)

    async def events(self, plugin: str = "*") -> AsyncIterator[Message]:
        """Listen to what the controller tells of a plugin, or of all: each payload is a CloudEvent."""
        return await self.subscribe(f"crucible.events.{plugin}.*")

    async def _connected(self) -> Bus:
        """Return the connection to the bus, made when it is first needed, and again after it broke."""
        async with self._connecting:
            end = time.monotonic() + BUS_PATIENCE
            while self._bus is None or not self._bus.connected:
                try:
                    await self._line.aclose()  # the one that broke
                    self._bus = await self._line.enter_async_context(self._way())
                except Unavailable:
                    if time.monotonic() > end:
                        raise
                    await asyncio.sleep(_PAUSE)
            return self._bus

    def _way(self) -> Bus:
        """Return a way to the bus: this machine's, or through the API server a cluster's."""
        if self._kubeconfig is None:
            return HostBus(self._places.host / socket_name(Door.BUS), self.namespace)
        door = door_beside(self._kubeconfig)
        if door is not None:
            return HostBus(door, self.namespace)
        endpoint = load_endpoint(self._kubeconfig, self._context)
        return ClusterBus(endpoint, self._release, self.namespace)

    @property
    def _api(self) -> Client:
        if self._client is None:
            raise Unavailable("use the manager in its `async with` block")
        return self._client

    def _path(self, name: str) -> str:
        return PLUGIN.path(self.namespace, name)


def _checked(files: Sequence[tuple[Path | str, bytes]], namespace: str) -> tuple[Wanted, ...]:
    """Read and check manifests, in the order in which they are to be applied."""
    found: list[Wanted] = []
    problems: list[Violation] = []
    for place, data in files:
        wanted, wrong = wanted_of(data, place, None, namespace)
        found += wanted
        problems += wrong
    problems += given_twice(found)
    if problems:
        raise InvalidManifest(tuple(problems))
    return tuple(sorted(found, key=lambda one: RESOURCES.index(one.resource)))
