"""One broker of several: how replicas reach each other by NATS, with certificates that a Secret holds."""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from crucible.backbone.mounted import papers_in
from crucible.errors import InvalidInput
from crucible.model.backbone import PORT, Joining

if TYPE_CHECKING:
    from pathlib import Path

    from crucible.backbone.mounted import Papers
    from crucible.bus.far import Far

log = logging.getLogger(__name__)

LOOK: Final = 5.0
"""Seconds between two looks at the certificates."""


@dataclass(frozen=True, slots=True)
class Backbone:
    """Where replicas meet.

    Attributes:
        host: of the NATS server, as its certificate has it.
        port: of the server.
        folder: with the certificate of the brokers.
        copies: servers that keep each durable event.
    """

    host: str
    port: int
    folder: Path
    copies: int = 1


def backbone_at(url: str, folder: Path, copies: int) -> Backbone:
    """Read ``tls://HOST:PORT``.

    Raises:
        InvalidInput: it is none.
    """
    fault = f"{url}: no address of a NATS server: write tls://HOST:{PORT}"
    try:
        parts = urlsplit(url)
        port = parts.port or PORT
    except ValueError as error:
        raise InvalidInput(fault) from error
    more = parts.path.strip("/") or parts.query or parts.fragment or parts.username or parts.password
    if parts.scheme != "tls" or not parts.hostname or more:
        raise InvalidInput(fault)
    return Backbone(parts.hostname, port, folder, copies)


class Replica:
    """Keeps a broker joined to the other replicas.

    Attributes:
        name: of this one. It is another with each start, so nobody takes it for one before it.
        problem: why the certificates there are now are not used; empty: they are.
    """

    def __init__(self, far: Far, backbone: Backbone) -> None:
        """Join.

        Raises:
            InvalidInput: the certificates cannot be used.
        """
        self.name = f"bus-{secrets.token_hex(8)}"
        self.problem = ""
        self._far = far
        self._backbone = backbone
        self._papers: Papers | None = None
        self._joined = False
        self._take(papers_in(backbone.folder))

    def _take(self, papers: Papers) -> None:
        """Show these from the next connection on; the one that there is goes on."""
        if papers == self._papers:
            return
        self._papers = papers
        to, shown = self._backbone, papers.shown
        joining = Joining(self.name, to.host, to.port, papers.authority, shown.certificate, shown.key)
        self._far.become(joining, kindred=to.copies)
        log.info("the certificate for the backbone was read; this replica is %s", self.name)

    async def keep(self) -> None:
        """Read the certificates again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            try:
                self._take(papers_in(self._backbone.folder))
            except InvalidInput as error:
                if str(error) != self.problem:
                    log.warning("the backbone's certificates stay as they were: %s", error)
                self.problem = str(error)
            else:
                self.problem = ""

    @property
    def unready(self) -> str:
        """Why nobody should connect yet: without the others half of the plugins are missing.

        One that was joined once goes on through an outage of the server: those who are connected here still
        reach each other.
        """
        self._joined = self._joined or self._far.nats is not None
        return "" if self._joined else f"the backbone is not reached: {self._far.problem or 'not tried yet'}"
