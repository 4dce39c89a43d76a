"""The NATS server of a cluster as the chart would run it, and the Secrets of its brokers as folders."""

from __future__ import annotations

import json
import subprocess
from base64 import b64decode
from datetime import timedelta
from typing import TYPE_CHECKING

from backboned import Joined, free_port, until

from crucible.backbone.authority import authority_in, utc_now
from crucible.backbone.secrets import Wanted, secrets
from crucible.backbone.server import nats_server
from crucible.bus import nats
from crucible.bus.credentials import context_of
from crucible.bus.kept import KeptStores
from crucible.core import natsconfig
from crucible.model.backbone import Joining
from crucible.model.bus import Grants, Member

if TYPE_CHECKING:
    from pathlib import Path

    from raw import Raw

    from crucible.backbone.authority import Authority


class Natted:
    """A server with the chart's settings; its files are elsewhere, and its ports are free ones."""

    def __init__(self, place: Path) -> None:
        place.mkdir(parents=True)
        self.place = place
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.renew(authority_in(place, utc_now()))

    def renew(self, authority: Authority, trusted: str = "") -> None:
        """Put new Secrets in the place of those there are, each file in one step."""
        self.authority = authority
        wanted = Wanted("crucible-bus", "crucible-system", timedelta(days=30), trusted)
        for secret in secrets(authority, wanted, utc_now()):
            folder = self.folder(secret["metadata"]["name"].removeprefix("crucible-bus-"))
            folder.mkdir(exist_ok=True)
            for name, text in secret["data"].items():
                draft = folder / f".{name}"
                draft.write_bytes(b64decode(text))
                draft.replace(folder / name)
        shown = authority.server(("localhost",), utc_now())
        (self.folder("nats-server") / "tls.key").write_text(shown.key)
        (self.folder("nats-server") / "tls.crt").write_text(shown.certificate)

    def folder(self, end: str) -> Path:
        """Return where a Secret is mounted: ``tls``, ``nats-client``, ``nats-server``."""
        return self.place / end

    def arguments(self) -> tuple[str, ...]:
        """Return what a broker is told. Names resolve in a cluster only, so its address is the loopback's."""
        return (
            *("--certificates", str(self.folder("tls"))),
            *("--backbone", f"tls://localhost:{self.port}"),
            *("--backbone-certificates", str(self.folder("nats-client"))),
        )

    async def start(self) -> None:
        """Start it, and wait until it takes connections."""
        settings = json.loads(natsconfig.replicated())
        settings |= {"host": "127.0.0.1", "port": self.port, "http_port": 0}
        settings["jetstream"]["store_dir"] = str(self.place / "data")
        tls = self.folder("nats-server")
        settings["tls"] |= {
            name: str(tls / file)
            for name, file in (("cert_file", "tls.crt"), ("key_file", "tls.key"), ("ca_file", "ca.crt"))
        }
        (self.place / "nats.json").write_text(json.dumps(settings))
        with (self.place / "log").open("ab") as log:
            argv = [nats_server(), "-c", self.place / "nats.json"]
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        await until(self._answers)

    def _answers(self) -> bool:
        return "Server is ready" in self.log()

    def log(self) -> str:
        return (self.place / "log").read_text()

    def joining(self, name: str) -> Joining:
        """Return how a broker of the test's own loop joins."""
        return self._joining(name, "nats-client")

    def _joining(self, name: str, end: str) -> Joining:
        folder = self.folder(end)
        shown = [(folder / file).read_text() for file in ("ca.crt", "tls.crt", "tls.key")]
        return Joining(name, "localhost", self.port, *shown)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            (self.place / "log").write_text("")

    async def client(self, end: str = "nats-client", name: str = "raw") -> nats.Nats:
        """Connect as whoever has the certificate of a Secret."""
        joining = self._joining(name, end)
        return await nats.connect("localhost", self.port, context_of(joining), name, lambda _: None)


class Replicas:
    """Two brokers that know the same plugins."""

    def __init__(self, server: Natted, folder: Path) -> None:
        self.server = server
        self.one = Joined("bus-one", folder / "one")
        self.two = Joined("bus-two", folder / "two")
        self.stores = {each.name: self._stores(each) for each in (self.one, self.two)}

    @staticmethod
    def _stores(replica: Joined) -> KeptStores:
        broker = replica.broker
        made = KeptStores(broker.calls, broker.ledger, broker.far, 1)
        broker.calls.services.update(made.services())
        return made

    async def meet(self) -> None:
        for replica in (self.one, self.two):
            replica.far.become(self.server.joining(replica.name), kindred=1)
        await until(lambda: self.one.far.nats is not None and self.two.far.nats is not None)

    async def add(self, where: Joined, name: str, *methods: str, **grants: object) -> Raw:
        """Let a plugin exist, for both, and connect to one."""
        other = self.two if where is self.one else self.one
        member = Member("here", name, f"uid-here-{name}", Grants(**grants))  # type: ignore[arg-type]
        other.broker.know(member)
        other.members[name] = member
        return await where.add(name, *methods, **grants)

    def grant(self, name: str, **grants: object) -> None:
        """Change what a plugin may do."""
        self.one.grant(name, **grants)
        self.two.grant(name, **grants)
