"""The local control plane: one object that opens the state folder and serves the Kubernetes API."""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

import yaml
from aiohttp import web

from crucible.errors import InvalidInput

from .archive import desired_state
from .collector import Collector
from .connections import Doors
from .corekinds import core_resources
from .database import Database, PlainSeal
from .definitions import resources_of
from .deletes import CRD_COLLECTION
from .expiry import expire_events
from .guard import is_loopback
from .handlers import Site
from .http import Frontend
from .jsontypes import clone
from .keys import Key
from .kubeconfig import certificate_of, context_name, kubeconfig_for
from .ownership import StateLock, remembered_port, remembered_token
from .pods import PODS, PodMirror, clear_pods
from .resources import Catalog
from .sealing import FileSeal
from .store import Store
from .tls import prepare_tls, server_context, use_small_read_buffers, write_private
from .watch import Hub
from .writes import Call, Writes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Any

    from crucible.errors import Violation

    from .jsontypes import Object
    from .keys import Record
    from .pods import PodProvider
    from .resources import Resource
    from .settings import ServerSettings
    from .store import Commit

NAMESPACES = ("default", "kube-system")
MANAGER = "crucible"


class ApiServer:
    """A Kubernetes API server for plugins, in this process and event loop.

    ``async with ApiServer(settings, crds=[...]) as server:`` opens the state folder, installs the
    definitions and listens; leaving it finishes writes, ends watches and gives the folder up.

    Attributes:
        url: Where it listens, ``https://127.0.0.1:PORT``.
        kubeconfig: A file that clients can use, readable by its owner only.
        token: The bearer token.
        ca: The CA certificate, PEM.

    Raises:
        Conflict: On entry, another process owns the state folder.
        InvalidInput: On entry, the database is damaged, or a definition or setting is invalid.
    """

    url: str
    kubeconfig: Path
    token: str
    ca: Path

    def __init__(
        self,
        settings: ServerSettings,
        *,
        crds: Sequence[Object] = (),
        admit: Callable[[Object], tuple[Violation, ...]] | None = None,
        pods: PodProvider | None = None,
        extra: Sequence[Resource] = (),
    ) -> None:
        """Serve the core kinds and ``crds``; ``extra`` kinds too, in the place of core ones of that name."""
        if not is_loopback(settings.host):
            raise InvalidInput(f"host {settings.host}: the local control plane listens on loopback only")
        self._settings = settings
        self._crds = tuple(crds)
        self._admit = admit
        self._pods = pods
        self._core = Catalog(core_resources()).replaced(extra)
        self._stores_pods = any(resource.plural == PODS for resource in extra)
        self._catalog = self._core
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        self._listener: socket.socket | None = None

    async def __aenter__(self) -> Self:
        """Open the state folder and listen."""
        folder = self._settings.state_dir
        self._lock = StateLock(folder)
        try:
            await self._open(folder)
        except BaseException:
            self._lock.release()
            raise
        return self

    async def _open(self, folder: Path) -> None:
        settings = self._settings
        seal = FileSeal(settings.secrets_key) if settings.secrets_key else PlainSeal()
        database = Database(folder / "control.db", seal)
        self._store = Store(database, settings.history_events, settings.history_bytes)
        try:
            await self._serve(folder)
        except BaseException:
            await self._stop()
            raise

    async def _serve(self, folder: Path) -> None:
        settings = self._settings
        self._hub = Hub(settings.watch_queue)
        writes = Writes(self._store, self._admit, random.SystemRandom().choices)
        self._collector = Collector(self._store, lambda: self._catalog, _now)
        self._rebuild_catalog()
        self._store.listen(self._see)
        await self._install(writes)
        self._collector.start(self.records())
        self._start(self._collector.run())
        self._start(expire_events(self._store, settings.event_ttl, settings.most_events))
        if self._pods is None and not self._stores_pods:
            await clear_pods(self._store)
        elif self._pods is not None and not self._stores_pods:
            self._start(PodMirror(self._store, self._pods, _now).run())
        site = Site(self._store, writes, lambda: self._catalog, _now, settings.max_depth)
        self._frontend = Frontend(site, self._hub, settings, self._pods)
        await self._listen(folder, self._frontend)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _listen(self, folder: Path, frontend: Frontend) -> None:
        settings = self._settings
        use_small_read_buffers()
        tls = prepare_tls(folder, datetime.now(UTC))
        self.token = frontend.token = remembered_token(folder)
        self.ca = tls.ca
        self._runner = runner = web.AppRunner(
            frontend.application(),
            handler_cancellation=True,
            keepalive_timeout=3630,
            access_log=None,
            shutdown_timeout=1,
        )
        await runner.setup()
        port = settings.port or remembered_port(folder, settings.host)
        context = server_context(tls)
        if runner.server is None:
            raise InvalidInput("the server did not start")
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        self._listener = socket.create_server((settings.host, port), family=family, backlog=512)
        self._listener.setblocking(False)
        self._start(Doors(runner.server, settings).serve(self._listener, context))
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"https://{host}:{port}"
        self.kubeconfig = folder / "kubeconfig"
        name, ca = context_name(folder), tls.ca.read_bytes()
        config = kubeconfig_for(name, self.url, ca, self.token, certificate_of(tls))
        write_private(self.kubeconfig, yaml.safe_dump(config, sort_keys=False).encode())

    async def _install(self, writes: Writes) -> None:
        namespaces = self._catalog.find("", "v1", "namespaces")
        definitions = self._catalog.find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        if namespaces is None or definitions is None:
            raise InvalidInput("the core kinds are missing")
        call = Call(MANAGER, _now())
        for name in NAMESPACES:
            if self._store.head(Key("namespaces", "", name)) is None:
                body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                await writes.create(namespaces, "", body, call)
        for crd in self._crds:
            live = self._store.head(Key(CRD_COLLECTION, "", crd["metadata"]["name"]))
            body = clone(crd)
            if live is None:
                await writes.create(definitions, "", body, call)
            else:
                merged = {**body, "metadata": {**live.body["metadata"], **body["metadata"]}}
                await writes.update(definitions, live, merged, call)

    def _see(self, commit: Commit) -> None:
        if commit.event.key.collection == CRD_COLLECTION:
            self._rebuild_catalog()
            if commit.after is None:
                self._hub.end(commit.event.key.name)
        self._collector.see(commit)
        self._hub.publish(commit)

    def _rebuild_catalog(self) -> None:
        crds = self._store.list(CRD_COLLECTION)
        custom = [resource for crd in crds if crd.body.get("status") for resource in resources_of(crd.body)]
        self._catalog = self._core.extended(custom)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening, finish writes, release the folder."""
        self._hub.end_all()
        await self._stop()
        self._lock.release()

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()
        await self._store.close()

    def peek(self, collection: str, namespace: str, name: str) -> Object | None:
        """Return a stored object as it is now, for the process that the server is part of."""
        record = self._store.get(Key(collection, namespace, name))
        return None if record is None else record.body

    def listen(self, told: Callable[[Key], None]) -> None:
        """Call ``told`` with the key of each object that changes, once it has. It must not raise."""
        self._store.listen(lambda commit: told(commit.event.key))

    def tell_figures(self, figures: Callable[[], str]) -> None:
        """Answer ``GET /metrics`` with what this returns, in Prometheus' text format."""
        self._frontend.figures = figures

    async def backup(self, target: Path) -> None:
        """Write a consistent copy of everything stored to ``target``, while serving."""
        await self._store.backup(target)

    def records(self) -> list[Record]:
        """Every durable object of every kind that is served."""
        collections = dict.fromkeys(resource.collection for resource in self._catalog.resources)
        return [record for name in collections for record in self._store.list(name)]


def export_state(server: ApiServer) -> list[Object]:
    """The desired state a server holds, as documents to apply to this or another one."""
    return desired_state(server.records())


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
