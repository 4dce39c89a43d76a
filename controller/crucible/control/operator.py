"""The kopf operator: watches Plugins, and hosts one supervise coroutine for each.

Nothing here decides. kopf tells what it sees; every Plugin seen has a loop, and whatever is seen wakes it.
kopf is imported nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp
import kopf
from kopf._cogs.clients.errors import APIError
from kopf._cogs.clients.watching import WatchingError

from crucible.control.neighbours import Neighbours
from crucible.control.stream import session_of
from crucible.errors import Unavailable
from crucible.loop import supervise
from crucible.model import names

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from crucible.control.kubeconfig import Endpoint
    from crucible.ports import Ports

_STOP_SECONDS = 5.0
"""How long loops may take to finish the turn they are in."""
_AGAIN: Final = 5.0
"""Seconds after which the loop of a Plugin begins anew that ended for what nobody foresaw."""
_CUT_SECONDS: Final = 5.0
"""How long kopf may take to end once it was cancelled, before it is cancelled once more."""
_CUTS: Final = 4
_WATCH_SECONDS: Final = 300
_LATE: Final = 30
"""Seconds after which a watch that should have ended is taken for one that nobody serves any more."""
_WATCHER: Final = "watcher for "
"""What the names of kopf's tasks begin with that others of its tasks begin and wait for."""

log = logging.getLogger(__name__)


class Loops:
    """The loops of all Plugins: the newest object of each, the bell that wakes it, the task that runs it.

    Attributes:
        gone: set whenever a loop ended, until whoever waits for it clears it.
        turns: how often any loop looked at its Plugin.
    """

    def __init__(self, ports: Ports) -> None:
        self.gone = asyncio.Event()
        self.turns = 0
        self._ports = ports
        self._stopping = False
        self._neighbours = Neighbours()
        self._objects: dict[str, Mapping[str, Any]] = {}
        self._bells: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._enforcement: dict[int, list[Any]] = {}

    def objects(self) -> list[Mapping[str, Any]]:
        """Return every Plugin that has a loop, as it was last seen."""
        return list(self._objects.values())

    def uids(self) -> list[str]:
        """Return the uid of every Plugin that has a loop."""
        return list(self._tasks)

    def see(self, plugin: Mapping[str, Any]) -> None:
        """Take in a Plugin as it is now; begin its loop, or wake it, unless all it says is what we said.

        One that is older than what is known comes late, for a change overtakes what waits in kopf's queues.
        """
        uid = plugin["metadata"]["uid"]
        before = self._objects.get(uid)
        if before is not None and version_of(plugin) < version_of(before):
            return
        self._objects[uid] = seen = self._shared(without_managed_fields(plugin))
        concerned = self._neighbours.see(plugin)
        if uid not in self._tasks and not self._stopping:
            self._bells[uid] = asyncio.Event()
            self._tasks[uid] = asyncio.create_task(self._run(uid))
        for each in concerned if before is not None and is_echo(before, seen) else (uid, *concerned):
            self.ring(each)

    def _shared(self, plugin: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return an object that shares with others what all say of their controls: it is half of a status."""
        status = plugin.get("status") or {}
        said = status.get("enforcement")
        if not isinstance(said, list):
            return plugin
        known = self._enforcement.get(len(said))
        if known != said:
            self._enforcement[len(said)] = known = said
        return {**plugin, "status": {**status, "enforcement": known}}

    def follow(self, plugin: Mapping[str, Any]) -> bool:
        """Take in a change of a Plugin that has a loop; of any other take in nothing, and return False."""
        if plugin["metadata"].get("uid") not in self._tasks:
            return False
        self.see(plugin)
        return True

    def lose(self, uid: str) -> None:
        """Take in that a Plugin is no more: what was made for it goes, whoever removed the finalizer."""
        if uid in self._objects and uid in self._tasks:
            plugin = self._objects[uid]
            gone = {"deletionTimestamp": plugin["metadata"].get("deletionTimestamp", "now"), "finalizers": []}
            self.see({**plugin, "metadata": {**plugin["metadata"], **gone}})

    def compare(self, uids: Collection[str]) -> None:
        """Lose every Plugin that is not among these: a watch that was cut may have missed its deletion."""
        for uid in set(self._tasks) - set(uids):
            self.lose(uid)

    def find(self, uid: str) -> Mapping[str, Any] | None:
        """Return one Plugin as last seen; None where it is gone."""
        return self._objects.get(uid)

    def ring(self, uid: str) -> None:
        """Wake the loop of one Plugin, if it has one."""
        if uid in self._bells:
            self._bells[uid].set()

    def ring_those(self, concerns: Callable[[Mapping[str, Any]], bool]) -> None:
        """Wake the loop of every Plugin that something concerns."""
        for uid, plugin in self._objects.items():
            if concerns(plugin):
                self.ring(uid)

    async def close(self) -> None:
        """Let every loop finish the turn it is in, and end. Instances go on running."""
        self._stopping = True
        for uid in tuple(self._bells):
            self.ring(uid)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=_STOP_SECONDS)
            for task in late:
                task.cancel()

    async def _run(self, uid: str) -> None:
        try:
            await supervise(
                lambda: self._observe(uid),
                self._ports,
                self._bells[uid],
                lambda: self._stopping,
                lambda: self._neighbours.around(uid),
            )
        except Exception:
            plugin = self._objects[uid]
            log.exception("the loop of %s failed; it begins anew in %.0f s", uid, _AGAIN)
            asyncio.get_running_loop().call_later(_AGAIN, self.see, plugin)
        finally:
            for known in (self._objects, self._bells, self._tasks):
                known.pop(uid, None)
            for each in self._neighbours.lose(uid):
                self.ring(each)
            self.gone.set()

    def _observe(self, uid: str) -> Mapping[str, Any]:
        self.turns += 1
        return self._objects[uid]


def without_managed_fields(plugin: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an object less the half of it that only servers read."""
    meta = {name: value for name, value in plugin["metadata"].items() if name != "managedFields"}
    return {**plugin, "metadata": meta}


def version_of(plugin: Mapping[str, Any]) -> int:
    """Return an object's version as a number: API servers promise that they can be compared as such."""
    version = str(plugin["metadata"].get("resourceVersion", ""))
    return int(version) if version.isdecimal() else 0


def is_echo(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether nothing but a Plugin's status changed: the loop that wrote it knows what it wrote.

    What comes unchanged was listed anew, and is no echo: its loop looks at everything again.
    """
    return before.get("status") != now.get("status") and _asked(before) == _asked(now)


def _asked(plugin: Mapping[str, Any]) -> tuple[object, dict[str, Any]]:
    meta = {name: value for name, value in plugin["metadata"].items() if name != "resourceVersion"}
    return plugin.get("spec"), meta


async def operate(  # noqa: PLR0913 - what kopf has to be told
    endpoint: Endpoint,
    loops: Loops,
    *,
    ready: asyncio.Event,
    stop: asyncio.Event,
    namespaces: Collection[str] = (),
    renew: Callable[[], Endpoint] | None = None,
    page: int | None = None,
    watched: asyncio.Event | None = None,
    begun: Callable[[], None] = lambda: None,
) -> None:
    """Watch until told to stop.

    Args:
        endpoint: the API server, and whom to be there.
        loops: told of every Plugin.
        ready: set when the operator goes to work.
        stop: set to end it; also set when it ends by itself.
        namespaces: the only ones to watch; none: all.
        renew: asked for the endpoint again whenever the server wants another token.
        page: how many Plugins to list at a time, of a server that keeps what it began to list for minutes;
            None: all.
        watched: set when the server first tells of Plugins, those there are being known.
        begun: called once kopf has put handlers of its own for signals in place, before any can come.

    Raises:
        Unavailable: the API server made kopf give up; watching anew may do.
        RuntimeError: kopf does not end, whatever is done.
    """
    access = _Access(renew or (lambda: endpoint), loops, watched or asyncio.Event())
    tasks = await kopf.spawn_tasks(
        registry=_registry(access, loops),
        settings=_settings(scan=not namespaces, page=page),
        standalone=True,
        identity="crucible",  # type: ignore[arg-type] # else kopf asks who the user is, and not all have names
        clusterwide=not namespaces,
        namespaces=namespaces,
        ready_flag=ready,
    )
    begun()
    stopping = asyncio.create_task(stop.wait())
    try:
        ended, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        await loops.close()
        # kopf.operator() would now wait for, and then cancel, every task of this event loop, the API
        # server's included. Its own tasks are all that has to end.
        await _end({*tasks, stopping})
        await access.close()
    for task in ended - {stopping}:
        _surface(task)


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """End kopf's tasks. A cancellation can be lost on its way: kopf drops one that comes between two watches.

    Raises:
        RuntimeError: some do not end.
    """
    late = set(tasks)
    for turn in range(_CUTS):
        if turn:
            log.warning("kopf has not ended: %s", ", ".join(sorted(task.get_name() for task in late)))
            late |= {task for task in asyncio.all_tasks() if task.get_name().startswith(_WATCHER)}
        for task in late:
            task.cancel()
        done, late = await asyncio.wait(late, timeout=_CUT_SECONDS)
        for task in done:
            if not task.cancelled() and task.exception() is not None:
                log.debug("%s ended", task.get_name(), exc_info=task.exception())
        if not late:
            return
    raise RuntimeError(f"kopf does not end: {', '.join(sorted(task.get_name() for task in late))}")


def _surface(task: asyncio.Task[None]) -> None:
    """Raise what ended one of kopf's tasks; what the API server said or failed to say is no defect of ours.

    Raises:
        Unavailable: kopf gave up on an answer. It does so where watching anew would do.
    """
    try:
        task.result()
    except (APIError, WatchingError, aiohttp.ClientError, TimeoutError) as error:
        raise Unavailable(f"watching Plugins ended: {error}") from error


class _NoDiffs(kopf.DiffBaseStorage):
    """Keeps nothing: the loops compare what is with what should be, so nobody reads what kopf would diff."""

    def build(self, **_: Any) -> kopf.BodyEssence:  # noqa: ANN401 - kopf's own signature is open
        """Return the part of an object that counts as changed: none."""
        return cast("kopf.BodyEssence", {})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:  # noqa: ANN401
        """Return what was stored: nothing ever is."""
        return None

    def store(self, **_: Any) -> None:  # noqa: ANN401
        """Store nothing."""


def _settings(*, scan: bool, page: int | None) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = not scan  # who may see one namespace only may not list namespaces
    settings.posting.enabled = False  # events are ours, each with the reason that was decided
    settings.queueing.exit_timeout = 0.1  # by then every loop has ended
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.queueing.idle_timeout = 0.5  # hardly any object comes twice: its changes go to its loop
    settings.watching.server_timeout = _WATCH_SECONDS
    settings.watching.client_timeout = _WATCH_SECONDS + _LATE  # one that was cut without a word
    settings.watching.chunk_size = page
    settings.networking.request_timeout = 30
    return settings


class _Access:
    """How kopf gets to the API server: by one session for as long as the endpoint is the same.

    kopf knows again by this what the server refused, and does not try it for ever.
    """

    def __init__(self, find: Callable[[], Endpoint], loops: Loops, watched: asyncio.Event) -> None:
        self._find = find
        self._loops = loops
        self._watched = watched
        self._made: tuple[Endpoint, kopf.AiohttpSession] | None = None

    async def open(self) -> kopf.AiohttpSession:
        """Say in kopf's words where the API server is."""
        endpoint = self._find()
        if self._made is None or self._made[0] != endpoint:
            await self.close()
            session = kopf.AiohttpSession(
                server=endpoint.server,
                default_namespace=endpoint.namespace,
                aiohttp_session=session_of(endpoint, self._loops.follow, self._watched.set),
            )
            self._made = endpoint, session
        return self._made[1]

    async def close(self) -> None:
        """Close what is open."""
        if self._made is not None:
            await self._made[1].aiohttp_session.close()


def _registry(access: _Access, loops: Loops) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry, backoff=1)  # a kubeconfig that is just being written, say
    async def login(**_: Any) -> kopf.AiohttpSession:  # noqa: ANN401 - kopf hands over whatever it has
        return await access.open()

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)
    async def notice(event: kopf.RawEvent, **_: Any) -> None:  # noqa: ANN401
        if event["type"] == "DELETED":
            loops.lose(event["object"]["metadata"]["uid"])
        else:
            loops.see(event["object"])

    return registry
