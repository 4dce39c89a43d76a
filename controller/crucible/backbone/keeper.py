"""Keeps the backbone as its settings say: the server, where it is here; certificates; the broker told."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from crucible.backbone import server
from crucible.backbone.authority import (
    Issued,
    authority_in,
    expiry,
    is_fresh,
    signed_by,
    utc_now,
    write_private,
)
from crucible.backbone.machines import MANAGER, Machine, Machines, fresh_token
from crucible.backbone.renewal import Clerk, is_due, renew
from crucible.backbone.settings import Hosting, meeting, pass_named, pass_text, read_settings
from crucible.bus import nats
from crucible.bus.credentials import context_of
from crucible.core import backbone, natsconfig
from crucible.errors import CrucibleError, Unavailable
from crucible.model.backbone import Joining, Share
from crucible.model.status import format_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from crucible.backbone.authority import Authority
    from crucible.backbone.server import ServerPlace

LOOK: Final = 2.0
"""Seconds between two looks at the settings."""
ADDRESS: Final = "address"
_BOTH: Final = "server and client"
"""For what a machine's own certificate is; one of an earlier release is for less."""
_API_SECONDS: Final = 10.0
_RETRY_LONGEST: Final = 10.0
RENEWAL: Final = 60.0
"""Seconds until a pass that could not be renewed is tried again; there is a third of its life for it."""

log = logging.getLogger(__name__)


class Keeper:
    """Keeps the backbone. ``keep`` does the work."""

    def __init__(
        self, settings: Path | None, place: ServerPlace, join: Callable[[Joining | None], None]
    ) -> None:
        """Begin.

        Args:
            settings: the file; None: this machine is on no backbone, and a server that runs is ended.
            place: where the server's things are.
            join: tells the broker how other machines are reached.
        """
        self.problem = ""
        """Why it is not as the settings say, for people."""
        self._settings = settings
        self._place = place
        self._join = join
        self._held: int | None = None
        self._streams: set[str] = set()
        self._clerk = Clerk(place.folder)
        self._renewal_at = 0.0
        self._wake = asyncio.Event()

    async def keep(self) -> None:
        """Keep it, for ever; cancelled, the server goes on."""
        failures = 0
        try:
            while True:
                self._wake.clear()
                try:
                    await self._turn()
                    failures, self.problem = 0, ""
                    if self._settings is None:
                        return
                except (CrucibleError, OSError) as error:
                    failures += 1
                    if str(error) != self.problem:
                        log.warning("backbone: %s", error)
                    self.problem = str(error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(LOOK * max(failures, 1), _RETRY_LONGEST)):
                        await self._wake.wait()
        finally:
            self._clerk.close()
            self._let_go()

    async def _turn(self) -> None:
        found = None if self._settings is None else await asyncio.to_thread(read_settings, self._settings)
        if isinstance(found, Hosting):
            await self._host(found)
        else:
            await self._end()
            self._join(found)
            if found is not None and self._settings is not None:
                await self._renew(self._settings, found)

    async def _renew(self, settings: Path, joining: Joining) -> None:
        """Put a new pass in the place of one that ends soon; the next turn has the broker take it on.

        A server of the user's own has no authority of ours: who made its certificates makes them anew.
        """
        now = asyncio.get_running_loop().time()
        if now < self._renewal_at or not is_due(joining, utc_now()):
            return
        file = await asyncio.to_thread(pass_named, settings)
        if file is None:
            return
        self._renewal_at = now + RENEWAL
        made = await renew(joining)
        fresh = replace(joining, certificate=made.certificate, key=made.key)
        await asyncio.to_thread(write_private, file, pass_text(fresh))
        self._renewal_at = 0.0
        log.info("the pass for the backbone was renewed, until %s", expiry(made.certificate))

    async def _host(self, hosting: Hosting) -> None:
        """See to the server, then have the broker join it."""
        folder = self._place.folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        now = utc_now()
        authority = authority_in(folder, now)
        ours = _own_identity(folder, hosting)
        issued = _kept(folder, "machine", authority, lambda: authority.machine(ours.identity, now), _BOTH)
        files = self._files(hosting, authority, ours)
        host, port = hosting.advertised[0]
        _note(folder / ADDRESS, json.dumps([host, port]))
        await self._serve(hosting, server.write(self._place, files))
        shared = {one.namespace for one in hosting.shares}
        invited = {name for machine in Machines(folder).all().values() for name in machine.namespaces}
        await self._make_streams(authority, hosting, shared | invited)
        local = _reachable(hosting.host)
        self._join(
            Joining(
                hosting.machine,
                local,
                hosting.port,
                authority.certificate,
                issued.certificate,
                issued.key,
                hosting.shares,
                meeting(hosting.machine, issued.certificate, hosting.lines),
                "" if hosting.lines is None else hosting.lines.listen,
            )
        )
        await self._clerk.serve(lambda: self._manager(authority, hosting))

    def _files(self, hosting: Hosting, authority: Authority, ours: Machine) -> dict[str, str]:
        """Return what the server reads."""
        folder, now = self._place.folder, utc_now()
        names = ["localhost", "127.0.0.1", "::1", *(host for host, _ in hosting.advertised)]
        names += [] if _is_any(hosting.host) else [hosting.host]
        note = ",".join(sorted(set(names)))
        served = _kept(folder, "server", authority, lambda: authority.server(names, now), note)
        manager = natsconfig.User(MANAGER, _manager(folder), manages=True)
        people = [ours.user, manager, *(one.user for one in Machines(folder).all().values())]
        return {
            server.SETTINGS: natsconfig.settings(hosting.host, hosting.port, people),
            natsconfig.AUTHORITY: authority.certificate,
            natsconfig.CERTIFICATE: served.certificate,
            natsconfig.KEY: served.key,
        }

    async def _serve(self, hosting: Hosting, changed: bool) -> None:
        """See to it that the server runs, with the settings as they are."""
        if self._held is not None and _is_gone(self._held):
            self._let_go()
            log.warning("the backbone's server is gone: it is started again")
        if self._held is None:
            self._held = server.reach(self._place)
            fresh = self._held is None
            if self._held is None:
                self._held = await server.start(self._place, hosting.port)
            else:
                server.reload(self._held)  # what changed while no controller was there
            asyncio.get_running_loop().add_reader(self._held, self._ended)
            self._streams.clear()
            log.info("the backbone's server %s", "serves" if fresh else "was found serving")
        elif changed:
            server.reload(self._held)
            log.info("the backbone's server was told of new settings")
        server.trim_log(self._place)

    def _ended(self) -> None:
        if self._held is not None:
            asyncio.get_running_loop().remove_reader(self._held)
        self._wake.set()

    async def _make_streams(self, authority: Authority, hosting: Hosting, namespaces: set[str]) -> None:
        """Make the streams of durable events that are not there yet."""
        missing = namespaces - self._streams
        if not missing:
            return
        joining = self._manager(authority, hosting)
        connection = await nats.connect(
            joining.host, joining.port, context_of(joining), MANAGER, lambda _: None
        )
        try:
            for namespace in sorted(missing):
                await self._make_stream(connection, namespace)
                self._streams.add(namespace)
        finally:
            connection.close()

    def _manager(self, authority: Authority, hosting: Hosting) -> Joining:
        """Return how whoever manages joins."""
        issued = authority.machine(_manager(self._place.folder), utc_now())
        host, known = _reachable(hosting.host), authority.certificate
        return Joining(MANAGER, host, hosting.port, known, issued.certificate, issued.key)

    @staticmethod
    async def _make_stream(connection: nats.Nats, namespace: str) -> None:
        body = json.dumps(natsconfig.stream_settings(namespace)).encode()
        for verb in ("CREATE", "UPDATE"):
            subject = f"$JS.API.STREAM.{verb}.{backbone.stream(namespace)}"
            words = json.loads((await connection.request(subject, body, _API_SECONDS)).payload or b"{}")
            if "error" not in words:
                return
        said = words["error"].get("description", "it does not say why")
        raise Unavailable(f"the stream of {namespace} cannot be made: {said}")

    async def _end(self) -> None:
        """End a server that is not wanted any more."""
        self._clerk.close()
        if self._held is None:
            self._held = server.reach(self._place)
        held, self._held = self._held, None
        if held is not None:
            asyncio.get_running_loop().remove_reader(held)
            await server.end(held)
            log.info("the backbone's server ended: nothing needs it")

    def _let_go(self) -> None:
        if self._held is not None:
            asyncio.get_running_loop().remove_reader(self._held)
            os.close(self._held)
            self._held = None


def _note(path: Path, text: str) -> None:
    """Write something down, if it is new."""
    if not path.exists() or path.read_text() != text:
        write_private(path, text)


def _own_identity(folder: Path, hosting: Hosting) -> Machine:
    """Return who this machine is, made up the first time."""
    path = folder / "own.json"
    try:
        token = str(json.loads(path.read_text())["token"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        token = fresh_token()
        write_private(path, json.dumps({"token": token}))
    names = tuple(one.namespace for one in hosting.shares)
    return Machine(hosting.machine, token, names, "")


def _manager(folder: Path) -> str:
    """Return what the manager's certificate is made out to."""
    token = str(json.loads((folder / "own.json").read_text())["token"])
    return Machine(MANAGER, token, (), "").identity


def _kept(
    folder: Path, name: str, authority: Authority, issue: Callable[[], Issued], note: str = ""
) -> Issued:
    """Return a certificate from its files; a new one when there is none that is good for a while yet."""
    certificate, key, about = folder / f"{name}.crt", folder / f"{name}.key", folder / f"{name}.for"
    try:
        found = Issued(certificate.read_text(), key.read_text())
        same = about.read_text() == note
    except FileNotFoundError:
        same = False
    else:
        if (
            same
            and is_fresh(found.certificate, utc_now())
            and signed_by(found.certificate, authority.certificate)
        ):
            return found
    made = issue()
    write_private(key, made.key)
    write_private(certificate, made.certificate)
    write_private(about, note)
    log.info("a certificate of the backbone was made: %s, until %s", name, expiry(made.certificate))
    return made


def _is_any(host: str) -> bool:
    return host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


def _reachable(host: str) -> str:
    """Return by which address this machine reaches its own server."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - the same


def _is_gone(held: int) -> bool:
    poll = select.poll()
    poll.register(held, select.POLLIN)
    return bool(poll.poll(0))


def invite(folder: Path, machine: Machine, life_days: float, made: datetime | None = None) -> Joining:
    """Return how a machine joins, and write it down as invited; its pass is made now unless said otherwise.

    Raises:
        Unavailable: this machine has no server that others could join.
    """
    try:
        host, port = json.loads((folder / ADDRESS).read_text())
    except (FileNotFoundError, ValueError) as error:
        raise Unavailable(
            "this machine has no backbone that others could join: start crucible up --backbone FILE first, "
            "with listen in that file"
        ) from error
    now = made or utc_now()
    authority = authority_in(folder, now)
    issued = authority.machine(machine.identity, now, timedelta(days=life_days))
    until = expiry(issued.certificate)
    Machines(folder).put(
        Machine(
            machine.name, machine.token, machine.namespaces, format_time(until.timestamp() if until else 0.0)
        )
    )
    shares = tuple(Share(name) for name in machine.namespaces)
    return Joining(
        machine.name, str(host), int(port), authority.certificate, issued.certificate, issued.key, shares
    )
