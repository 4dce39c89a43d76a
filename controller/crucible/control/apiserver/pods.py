"""Running instances shown as Pods: the seam to whoever runs them, and the mirror that lists them."""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from crucible.errors import CrucibleError

from .jsontypes import clone
from .keys import Key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from .jsontypes import Object
    from .store import Store

_LOG = logging.getLogger(__name__)
PODS = "pods"


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which part of an instance's output.

    Attributes:
        follow: Keep sending what is written from now on.
        tail: The last so many lines; None for all.
        since: Only what is younger than so many seconds; None for all.
        since_time: Only what is no older than this moment, unix seconds; None for all.
        previous: The output of the run before the last restart.
        timestamps: Begin each line with its time.
    """

    follow: bool = False
    tail: int | None = None
    since: float | None = None
    since_time: float | None = None
    previous: bool = False
    timestamps: bool = False


class ExecSession(Protocol):
    """A command running inside an instance."""

    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Chunks of output with their channel, 1 for stdout and 2 for stderr, until both end."""

    async def write(self, data: bytes) -> None:
        """Send bytes to the command's stdin."""

    async def close_stdin(self) -> None:
        """End the command's stdin."""

    async def resize(self, rows: int, columns: int) -> None:
        """Say how large the terminal is, where there is one."""

    async def wait(self) -> int:
        """The exit code, once the command has ended."""

    async def close(self) -> None:
        """End the command if it still runs, and free what it holds."""


class PodProvider(Protocol):
    """Who runs instances. Errors of these methods are ``crucible.errors``."""

    def list(self) -> Sequence[Object]:
        """Every instance as a Pod with name, namespace and, where it has one, uid."""

    def logs(self, namespace: str, name: str, options: LogOptions) -> AsyncIterator[bytes]:
        """An instance's output."""

    async def exec(
        self, namespace: str, name: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecSession:
        """Start a command inside an instance.

        Raises:
            Unsupported: This runtime cannot.
        """

    async def metrics(self, namespace: str, name: str) -> Sequence[Object]:
        """What running instances use, as PodMetrics: of all namespaces, of one, or of one instance."""

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call ``changed``, from the event loop, whenever ``list`` would answer otherwise."""


class PodMirror:
    """Keeps the ``pods`` collection equal to what the provider lists."""

    def __init__(self, store: Store, provider: PodProvider, now: Callable[[], str]) -> None:
        self._store = store
        self._provider = provider
        self._now = now
        self._wake = asyncio.Event()
        provider.subscribe(self._wake.set)

    async def run(self) -> None:
        """Mirror until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self.mirror()
            except CrucibleError as error:
                _LOG.warning("cannot list instances: %s", error)
            await self._wake.wait()

    async def mirror(self) -> None:
        """Write what changed since the last time."""
        present = {self._key(pod): pod for pod in self._provider.list()}
        writes = [
            self._store.remove(record)
            for key, record in list(self._store.collection(PODS).items())
            if key not in present and self._store.head(key) is not None
        ]
        for key, pod in present.items():
            body = self._body(pod, key)
            if body is not None:
                writes.append(self._store.put(key, body))
        await asyncio.gather(*writes)

    def _key(self, pod: Object) -> Key:
        meta = pod["metadata"]
        return Key(PODS, str(meta.get("namespace") or "default"), str(meta["name"]))

    def _body(self, pod: Object, key: Key) -> Object | None:
        """What to write for a pod, or None where it is as stored."""
        live = self._store.head(key)
        body: Object = {**clone(pod), "apiVersion": "v1", "kind": "Pod"}
        before = live.body["metadata"] if live else {}
        meta = body["metadata"]
        meta["namespace"] = key.namespace
        meta.setdefault("uid", before.get("uid") or str(uuid.uuid4()))
        meta.setdefault("creationTimestamp", before.get("creationTimestamp") or self._now())
        meta["resourceVersion"] = before.get("resourceVersion", "")
        return None if live and live.body == body else body


async def clear_pods(store: Store) -> None:
    """Remove every mirrored pod: nobody runs them any more."""
    await asyncio.gather(*(store.remove(record) for record in store.list(PODS)))
