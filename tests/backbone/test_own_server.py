"""A NATS server of the user's own, started from the documentation's example, with another authority."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from backboned import DEADLINE, Joined, free_port, until
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from raw import Raw, words
from sandboxless import REPOSITORY

from crucible.backbone.authority import utc_now
from crucible.backbone.server import nats_server
from crucible.backbone.settings import read_settings
from crucible.bus import nats
from crucible.bus.credentials import context_of
from crucible.bus.wire import Frame, Kind
from crucible.core import natsconfig
from crucible.errors import Unavailable
from crucible.model.backbone import Joining

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from crucible.bus.natswire import Message

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
EXAMPLES = REPOSITORY / "docs/examples/backbone"


class Authority:
    """As people have them: RSA, and one in between that signs for it."""

    def __init__(self) -> None:
        self.root_key = rsa.generate_private_key(65537, 2048)
        self.key = _key()
        self.root = _sign("root", self.root_key, "root", self.root_key, ca=True)
        self.between = _sign("between", self.key, "root", self.root_key, ca=True)

    def issue(self, name: str, *, chain: bool = True) -> tuple[str, str]:
        """Return a certificate, with the one in between, and its key."""
        key = _key()
        signed = _sign(name, key, "between", self.key)
        text = _pem(signed) + (_pem(self.between) if chain else "")
        return text, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _key() -> Key:
    return ec.generate_private_key(ec.SECP384R1())


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _sign(name: str, key: Key, by: str, signer: Key, *, ca: bool = False) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = utc_now()
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(by))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names[: 1 if ca else 2]), critical=False)
        .sign(signer, hashes.SHA256())
    )


class Own:
    """The user's server, and what the user gives each machine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.authority = Authority()
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "ca.crt").write_text(_pem(self.authority.root))
        self.write("server", "nats.example.com")
        for name in ("alpha", "beta", "admin"):
            self.write(name, f"{name}.example.com")

    def write(self, file: str, name: str) -> None:
        certificate, key = self.authority.issue(name)
        (self.folder / f"{file}.crt").write_text(certificate)
        (self.folder / f"{file}.key").write_text(key)

    async def start(self, *changes: tuple[str, str]) -> None:
        text = (EXAMPLES / "nats.conf").read_text()
        for old, new in (("0.0.0.0:4222", f"127.0.0.1:{self.port}"), *changes):
            assert old in text, "the example has changed"
            text = text.replace(old, new)
        (self.folder / "nats.conf").write_text(text)
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [nats_server(), "-c", "nats.conf"], cwd=self.folder, stdout=log, stderr=log
            )
        await until(lambda: "Server is ready" in self.log() or self.process.poll() is not None)  # type: ignore[union-attr]
        assert self.process.poll() is None, self.log()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def joining(self, machine: str, more: str = "") -> Joining:
        text = (EXAMPLES / "own-server.yaml").read_text().replace("alpha", machine)
        file = self.folder / f"{machine}.yaml"
        file.write_text(text.replace("4222", str(self.port)) + more)
        found = read_settings(file)
        assert isinstance(found, Joining)
        return found

    async def client(self, name: str, heard: list[Message] | None = None) -> nats.Nats:
        context = context_of(self.joining(name))
        told = [] if heard is None else heard
        return await nats.connect("127.0.0.1", self.port, context, name, told.append)

    async def make_stream(self) -> None:
        admin = await self.client("admin")
        body = json.dumps(natsconfig.stream_settings("default")).encode()
        made = await admin.request("$JS.API.STREAM.CREATE.CRUCIBLE-default", body, DEADLINE)
        assert b'"error"' not in made.payload, made
        admin.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Own]:
    made = Own(tmp_path)
    yield made
    made.stop()


@pytest.fixture
async def machines(tmp_path: Path) -> AsyncIterator[tuple[Joined, Joined]]:
    both = Joined("alpha", tmp_path / "a"), Joined("beta", tmp_path / "b")
    yield both
    await Raw.hang_up()
    await asyncio.gather(*(one.close() for one in both))


async def test_calls_messages_and_durable_events_go_through_it(
    own: Own, machines: tuple[Joined, Joined]
) -> None:
    await own.start()
    await own.make_stream()
    alpha, beta = machines
    alpha.far.become(own.joining("alpha"))
    beta.far.become(own.joining("beta"))
    tokenizer = await Raw.greet(beta.plugin("tokenizer", "default"), methods=["split"])
    grants = {"call": ("tokenizer.split",), "subscribe": ("notes.>",)}
    notes = await Raw.greet(alpha.plugin("notes", "default", **grants))
    editor = await Raw.greet(beta.plugin("editor", "default", publish=("notes.>",)))
    await until(lambda: alpha.sees("beta", "tokenizer", "default"))
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split", b"to be"))
    asked = await tokenizer.next()
    assert asked.headers["from"] == "notes@alpha"
    tokenizer.send(Frame(Kind.ANSWER, asked.id, payload=b"[]"))
    assert (await notes.next()).payload == b"[]"
    assert words(await notes.ask(Frame(Kind.SUBSCRIBE, 3, "notes.>"))) == ("ANSWER", 3, "")
    taking = Frame(Kind.CALL, 5, "$events.take", headers={"pattern": "notes.*"}, deadline=300)
    async with asyncio.timeout(DEADLINE):
        while not alpha.far.durable._consumers:
            assert words(await notes.ask(taking))[2] == "DeadlineExceeded"
    put = await editor.call(1, "$events.put", b"kept", headers={"subject": "notes.saved"})
    assert words(put) == ("ANSWER", 1, ""), put.payload
    heard = await notes.next()
    assert (heard.kind, heard.payload, heard.headers["from"]) == (Kind.MESSAGE, b"kept", "editor@beta")
    taken = await notes.ask(taking._replace(id=7, deadline=20_000))
    assert (taken.payload, taken.headers["from"]) == (b"kept", "editor@beta")
    assert alpha.far.to_json()["refused"] == beta.far.to_json()["refused"] == []
    assert "Violation" not in own.log()
    for machine, name in (
        (alpha, "alpha"),
        (beta, "beta"),
    ):  # they have new certificates
        own.write(name, f"{name}.example.com")
        machine.far.become(own.joining(name))
    connections = alpha.far.nats, beta.far.nats
    own.stop()
    await own.start()
    await until(lambda: {alpha.far.nats, beta.far.nats}.isdisjoint({None, *connections}))


async def test_brokers_have_direct_lines_by_certificates_of_an_authority_of_the_users_own(
    own: Own, machines: tuple[Joined, Joined]
) -> None:
    await own.start()
    alpha, beta = machines
    port = beta.lets_in()
    alpha.far.become(own.joining("alpha"))
    beta.far.become(own.joining("beta", f"lines: 127.0.0.1:{port}\n"))
    tokenizer = await Raw.greet(beta.plugin("tokenizer", "default"), methods=["split"])
    notes = await Raw.greet(alpha.plugin("notes", "default", call=("tokenizer.split",)))
    await until(lambda: alpha.sees("beta", "tokenizer", "default") and alpha.directly("beta"))
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split", b"to be"))
    asked = await tokenizer.next()
    assert asked.headers["from"] == "notes@alpha"
    assert beta.far._peers["alpha"].server.served == 0
    tokenizer.send(Frame(Kind.ANSWER, asked.id, payload=b"[]"))
    assert (await notes.next()).payload == b"[]"


async def test_a_machine_speaks_there_for_itself_alone(own: Own) -> None:
    await own.start()
    await own.make_stream()
    heard: list[Message] = []
    admin, beta = await own.client("admin", heard), await own.client("beta")
    admin.subscribe("crucible.>")
    await admin.flush()
    for name in ("alpha", "beta"):
        for subject in re.findall(r'"(crucible[^"]*)\.alpha(\.>)?"', (EXAMPLES / "nats.conf").read_text()):
            spoken = subject[0].replace("*", "alpha")
            beta.publish("", 0, f"{spoken}.{name}{'.p.x' if subject[1] else ''}", b"x")
    beta.publish("", 0, "$JS.API.STREAM.DELETE.CRUCIBLE-default", b"")
    await beta.flush()
    await admin.flush()
    assert sorted(message.subject for message in heard) == [
        "crucible.here.beta",
        "crucible.keep.default.beta.p.x",
        "crucible.say.default.beta.p.x",
        "crucible.to.alpha.beta",
    ]
    assert len(beta.refused) == 5
    admin.close()
    beta.close()


async def test_what_its_permissions_lack_is_told(own: Own, machines: tuple[Joined, Joined]) -> None:
    await own.start(('"crucible.here.alpha", ', ""), ('"_INBOX.alpha.>"\n', "\n"))
    alpha = machines[0]
    alpha.far.become(own.joining("alpha"))
    await until(lambda: len(alpha.far.to_json()["refused"]) == 2)
    refused = " ".join(alpha.far.to_json()["refused"])
    assert "crucible.here.alpha" in refused
    assert "_INBOX.alpha." in refused


async def test_a_server_that_speaks_before_tls_does_is_told_apart(own: Own) -> None:
    await own.start(("handshake_first: true", "handshake_first: false"))
    with pytest.raises(Unavailable, match="handshake_first: true"):
        await own.client("alpha")


async def test_nobody_is_believed_whom_its_authority_does_not_know(own: Own, tmp_path: Path) -> None:
    await own.start()
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    other = Own(stranger)
    other.port = own.port
    with pytest.raises(Unavailable):  # ours for a server of another authority
        await other.client("alpha")
    mixed = context_of(own.joining("alpha"))
    certificate, key = other.authority.issue("alpha.example.com")
    (stranger / "pair").write_text(certificate + key)
    mixed.load_cert_chain(stranger / "pair")
    with pytest.raises(Unavailable):  # a certificate of another authority
        await nats.connect("127.0.0.1", own.port, mixed, "alpha", lambda _: None)
