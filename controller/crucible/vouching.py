"""Who vouches for the broker of a cluster, and what the namespaces of plugins are told of it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from crucible.backbone.authority import fresh_authority, is_fresh, utc_now
from crucible.backbone.mounted import Papers, papers_in
from crucible.bus.credentials import renew, serving
from crucible.errors import CrucibleError
from crucible.model.door import Door
from crucible.runtimes.kubernetes import marks
from crucible.runtimes.kubernetes.upkeep import collection

if TYPE_CHECKING:
    from pathlib import Path

    from crucible.control.cluster import ClusterClient

log = logging.getLogger(__name__)

COMPONENT: Final = "crucible-broker"
LOOK: Final = 5.0
"""Seconds between two looks at certificates that somebody else keeps."""
AGAIN: Final = 60.0
"""Seconds between two looks whether namespaces still say who vouches for the broker."""
RETRY: Final = 2.0


class Source(Protocol):
    """Where the broker's certificate comes from."""

    def read(self) -> Papers:
        """Return it as it is now.

        Raises:
            InvalidInput: it cannot be used.
        """


class Own:
    """An authority in this process's memory: nobody else has its key, and it ends with the process."""

    def __init__(self) -> None:
        """Make the authority."""
        self._authority = fresh_authority("crucible-bus-ca", utc_now())
        self._papers: Papers | None = None

    def read(self) -> Papers:
        """Return a certificate that is good for a while yet."""
        if self._papers is None or not is_fresh(self._papers.shown.certificate, utc_now()):
            issued = self._authority.server((Door.BUS,), utc_now())
            self._papers = Papers(self._authority.certificate, issued)
        return self._papers


class Mounted:
    """A folder: the same for every replica and whenever it starts, so that pods believe each."""

    def __init__(self, folder: Path) -> None:
        """Say where it is."""
        self._folder = folder

    def read(self) -> Papers:
        """Return what lies there.

        Raises:
            InvalidInput: it cannot be used.
        """
        return papers_in(self._folder, name=Door.BUS.value)


class Vouching:
    """What the broker shows, and what namespaces are told of who vouches for it.

    Attributes:
        tls: how the broker speaks.
        problem: why what it shows is not what should be shown by now; empty: it is.
    """

    def __init__(self, client: ClusterClient, source: Source) -> None:
        """Show what the source has.

        Raises:
            InvalidInput: it has nothing that can be used.
        """
        self._client = client
        self._source = source
        self._papers = source.read()
        self.tls = serving(self._papers.shown.certificate, self._papers.shown.key)
        self.problem = ""
        self._problems: dict[str, str] = {}
        self._wanted: dict[str, set[str]] = {}
        self._told: set[str] = set()
        self._due = 0.0
        self._wake = asyncio.Event()

    def want(self, owner: marks.Owner, *, wanted: bool) -> None:
        """Say whether a Plugin is on the bus: its pods wait until their namespace knows whom to believe."""
        uids = self._wanted.setdefault(owner.namespace, set())
        (uids.add if wanted else uids.discard)(owner.uid)
        if not uids:  # it may go, and one of its name come that was told nothing
            del self._wanted[owner.namespace]
            self._told.discard(owner.namespace)
            self._problems.pop(owner.namespace, None)
        elif owner.namespace not in self._told:
            self._due = 0.0
            self._wake.set()

    async def keep(self) -> None:
        """Keep namespaces told, and the certificate fresh, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            self._look()
            if loop.time() >= self._due:
                self._due = loop.time() + AGAIN
                for namespace in sorted(self._wanted):
                    await self._try(namespace)
                if self.untold:
                    self._due = loop.time() + RETRY
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK, max(self._due - loop.time(), 0.0))):
                    await self._wake.wait()

    def _look(self) -> None:
        """Show what the source has by now, from the next connection on; what cannot be used is not shown."""
        try:
            found = self._source.read()
            if found != self._papers:
                renew(self.tls, found.shown.certificate, found.shown.key)
        except (CrucibleError, OSError, ValueError) as error:
            if str(error) != self.problem:
                log.warning("the broker goes on showing its last certificate: %s", error)
            self.problem = str(error)
            return
        self.problem = ""
        if found != self._papers:
            log.info("the broker shows another certificate")
            if found.authority != self._papers.authority:
                self._told.clear()
                self._due = 0.0
            self._papers = found

    async def _try(self, namespace: str) -> None:
        """Tell a namespace. That one cannot be told, by a quota for instance, is no matter of the others."""
        try:
            await self._tell(namespace)
        except CrucibleError as error:
            self._told.discard(namespace)
            if self._problems.get(namespace) != str(error):
                log.warning("%s: ConfigMap %s cannot be written: %s", namespace, marks.AUTHORITY, error)
            self._problems[namespace] = str(error)
        else:
            if namespace in self._wanted:
                self._told.add(namespace)
            self._problems.pop(namespace, None)

    @property
    def untold(self) -> int:
        """How many namespaces have a plugin on the bus, and cannot know whom to believe."""
        return len(self._wanted.keys() - self._told)

    async def _tell(self, namespace: str) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": marks.AUTHORITY, "labels": {"app.kubernetes.io/part-of": "crucible"}},
            "data": {marks.AUTHORITY_KEY: self._papers.authority},
        }
        path = f"{collection('/api/v1', 'configmaps', namespace)}/{marks.AUTHORITY}"
        await self._client.apply(path, body, COMPONENT)
