"""One works, the others stand by: leadership by a Lease.

A holder counts from the moment *before* it asked for its last renewal, by a clock that goes on while the
process is paused, and stops acting well before anyone else may begin. Whoever waits counts from the moment it
*saw* the last renewal, so that nobody's wall clock matters.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from crucible.errors import Conflict, CrucibleError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

_PATH: Final = "/apis/coordination.k8s.io/v1/namespaces"


class Leases(Protocol):
    """What is needed of a client."""

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Read an object."""
        ...

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object."""
        ...

    async def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object, unless it changed since it was read."""
        ...


@dataclass(frozen=True, slots=True)
class Terms:
    """How long what may take, in seconds.

    Attributes:
        duration: a holder that was not seen to renew for so long is taken for dead.
        deadline: a holder that could not renew for so long stops; less than ``duration``.
        interval: between two renewals, and two looks of those who wait.
    """

    duration: float = 10.0
    deadline: float = 7.0
    interval: float = 2.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A renewal that somebody else made, and when it was seen, by our own clock."""

    renewal: tuple[str, str, int]
    at: float


class Lease:
    """This process' part in one Lease.

    Attributes:
        seen: the Lease could be read or written the last time that was tried.
    """

    def __init__(
        self,
        client: Leases,
        place: tuple[str, str],
        identity: str,
        clock: Callable[[], float],
        terms: Terms = Terms(),
    ) -> None:
        """Take part.

        Args:
            client: the API server; one whose writes nobody holds back.
            place: namespace and name of the Lease.
            identity: ours alone among those who take part.
            clock: seconds, monotonic, going on while the process is paused.
            terms: the same for all who take part.
        """
        self.seen = False
        self._client = client
        self._namespace, self._name = place
        self._identity = identity
        self._clock = clock
        self._terms = terms
        self._live: dict[str, Any] = {}
        self._until = 0.0
        self._other: Seen | None = None

    def held(self) -> bool:
        """Whether this process may act now."""
        return self._clock() < self._until

    async def acquire(self, stop: asyncio.Event) -> bool:
        """Wait until the Lease is ours; return False if ``stop`` is set before."""
        while not stop.is_set():
            try:
                if await self._try():
                    log.info("%s leads", self._identity)
                    return True
                self.seen = True
            except CrucibleError as error:
                self.seen = isinstance(error, Conflict)
                log.log(logging.DEBUG if self.seen else logging.WARNING, "no lease yet: %s", error)
            await _pause(stop, self._terms.interval)
        return False

    async def keep(self, stop: asyncio.Event) -> None:
        """Renew until it cannot be done in time, somebody else has it, or ``stop`` is set."""
        while self.held():
            await _pause(stop, min(self._terms.interval, max(self._until - self._clock(), 0)))
            if stop.is_set():
                return
            try:
                async with asyncio.timeout(max(self._until - self._clock(), 0)):
                    if not await self._try():
                        log.warning("%s leads no more: somebody else holds the lease", self._identity)
                        self._until = 0.0
            except TimeoutError:
                self.seen = False
            except CrucibleError as error:
                self.seen = False
                self._live = {}
                log.warning("the lease was not renewed: %s", error)
        log.warning("%s leads no more", self._identity)

    async def release(self) -> None:
        """Give it up, so that the next need not wait; one who could not say so is waited for."""
        if not self.held() or not self._live:
            return
        self._until = 0.0
        live, self._live = self._live, {}
        spec = {**live["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
        try:
            await self._client.replace(self._path, {**live, "spec": spec})
        except CrucibleError as error:
            log.info("the lease was not given up: %s", error)

    async def _try(self) -> bool:
        """Take or renew the Lease if it may be; return whether it is ours."""
        asked = self._clock()
        live = self._live or await self._read()
        if live is None:
            body = {"metadata": {"name": self._name, "namespace": self._namespace}, "spec": self._spec({})}
            head = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
            self._won(await self._client.create(f"{_PATH}/{self._namespace}/leases", {**head, **body}), asked)
            return True
        if not self._may_take(live["spec"]):
            self._live = {}
            return False
        try:
            body = {**live, "spec": self._spec(live["spec"])}
            self._won(await self._client.replace(self._path, body), asked)
        except Conflict:
            self._live = {}
            if not self.held():
                raise
            again = await self._read()
            if again is None or again["spec"].get("holderIdentity") != self._identity:
                return False
            self._won(
                await self._client.replace(self._path, {**again, "spec": self._spec(again["spec"])}), asked
            )
        return True

    def _won(self, live: dict[str, Any], asked: float) -> None:
        self._live = live
        self._until = asked + self._terms.deadline
        self._other = None
        self.seen = True

    async def _read(self) -> dict[str, Any] | None:
        try:
            found = await self._client.get(self._path)
        except NotFound:
            return None
        return {**found, "spec": found.get("spec") or {}}

    def _may_take(self, spec: Mapping[str, Any]) -> bool:
        """Whether the Lease is ours, nobody's, or its holder's time has run out while we watched."""
        holder = spec.get("holderIdentity") or ""
        if holder in {"", self._identity}:
            return True
        renewal = (holder, str(spec.get("renewTime")), int(spec.get("leaseTransitions") or 0))
        if self._other is None or self._other.renewal != renewal:
            self._other = Seen(renewal, self._clock())
        lasts = max(float(spec.get("leaseDurationSeconds") or 0), 1.0)
        return self._clock() >= self._other.at + lasts

    def _spec(self, before: Mapping[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        same = before.get("holderIdentity") == self._identity
        return {
            **before,
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(self._terms.duration),
            "acquireTime": before.get("acquireTime") if same else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if same or not before else 1),
        }

    @property
    def _path(self) -> str:
        return f"{_PATH}/{self._namespace}/leases/{self._name}"


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
