"""Passes that renew themselves: a machine asks over the backbone before its own ends, and nothing is cut.

A machine makes a new key, which never leaves it, and asks on ``crucible.renew.NAME``: the server lets a
machine publish only to the subject with its own name. Whoever keeps the authority answers with a certificate
for the same identity, as long as the machine is on the list of those that were invited, and good for as
long as the last one was: an invitation for a week stays one.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from crucible import certificates
from crucible.backbone.authority import (
    Issued,
    authority_in,
    expiry,
    identity_of,
    is_fresh,
    life_of,
    signed_by,
    utc_now,
)
from crucible.backbone.machines import MANAGER, Machines
from crucible.bus import nats
from crucible.bus.credentials import context_of
from crucible.core import backbone
from crucible.errors import InvalidInput, Unavailable
from crucible.model.status import format_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from crucible.backbone.authority import Authority
    from crucible.bus.natswire import Message
    from crucible.model.backbone import Joining

AGAIN: Final = 5.0
"""Seconds between two requests of one machine that are looked at; what is asked sooner gets no answer."""
_SECONDS: Final = 10.0
_LARGEST: Final = 16 * 1024

log = logging.getLogger(__name__)


def request() -> tuple[str, str]:
    """Return a new key, and the request for a certificate of it, in PEM."""
    key = certificates.fresh_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "crucible")])
    asked = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return certificates.private_pem(key), asked.public_bytes(serialization.Encoding.PEM).decode()


def answer(
    authority: Authority, machines: Machines, name: str, words: object, now: datetime
) -> dict[str, str]:
    """Return a new certificate for a machine whose name is proven, and note until when it is good.

    Raises:
        InvalidInput: it gets none; says why.
    """
    match words:
        case {"request": str(asked), "certificate": str(old)}:
            pass
        case _:
            raise InvalidInput("it is no request")
    machine = machines.all().get(name)
    if machine is None or identity_of(old) != machine.identity or not signed_by(old, authority.certificate):
        raise InvalidInput(f"{name} was not invited, or the certificate that it names is not its own")
    if is_fresh(old, now):
        raise InvalidInput("the certificate that it names is good for a while yet")
    until = expiry(old)
    if until is None or until < now:
        raise InvalidInput("the certificate that it names has ended: crucible backbone renew")
    made = authority.machine_for(machine.identity, _key_in(asked), now, life_of(old))
    ends = expiry(made)
    machines.extend(name, machine.token, format_time(ends.timestamp() if ends else 0.0))
    return {"certificate": made}


async def renew(joining: Joining) -> Issued:
    """Ask for a new certificate, by the one that is good for a while yet.

    Raises:
        Unavailable: there is none to be had just now.
        InvalidInput: what came is none of ours.
    """
    key, asked = request()
    connection = await nats.connect(
        joining.host, joining.port, context_of(joining), joining.machine, lambda _: None
    )
    try:
        body = json.dumps({"request": asked, "certificate": joining.certificate}).encode()
        told = await connection.request(backbone.renew(joining.machine), body, _SECONDS)
    finally:
        connection.close()
    words = _object(told.payload)
    match words:
        case {"certificate": str(certificate)}:
            pass
        case {"error": str(why)}:
            raise Unavailable(f"the pass is not renewed: {why[:300]}")
        case _:
            raise Unavailable("the pass is not renewed: nobody there does it")
    made = Issued(certificate, key)
    if not made.fits() or identity_of(certificate) != identity_of(joining.certificate):
        raise InvalidInput("the new certificate is for another key or another machine")
    if not signed_by(certificate, joining.authority):
        raise InvalidInput("the new certificate is not of the backbone's authority")
    return made


class Clerk:
    """Answers machines that ask for new certificates, on one connection to the server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection: nats.Nats | None = None
        self._asked: dict[str, float] = {}

    async def serve(self, manager: Callable[[], Joining]) -> None:
        """See to it that there is a connection, made as is said.

        Raises:
            Unavailable: there is none to be had.
        """
        if self._connection is not None and not self._connection.lost.done():
            return
        joining = manager()
        self._connection = await nats.connect(
            joining.host, joining.port, context_of(joining), MANAGER, self._heard
        )
        self._connection.subscribe(backbone.renew("*"))

    def close(self) -> None:
        """Answer nobody any more."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _heard(self, message: Message) -> None:
        machine = backbone.speaker_of("renew", message.subject)
        if machine is None or not message.reply or self._connection is None:
            return
        now = asyncio.get_running_loop().time()
        if now < self._asked.get(machine, 0.0):
            return
        self._asked[machine] = now + AGAIN  # as many as were invited: nobody else has such a subject
        try:
            said = self._answer(machine, message.payload)
        except (InvalidInput, OSError) as error:
            log.warning("backbone: %s asks for a new certificate and gets none: %s", machine, error)
            said = {"error": str(error)}
        self._connection.publish("", 1, message.reply, json.dumps(said).encode())

    def _answer(self, machine: str, payload: bytes) -> dict[str, str]:
        now = utc_now()
        words = _object(payload) if len(payload) <= _LARGEST else {}
        said = answer(authority_in(self._folder, now), Machines(self._folder), machine, words, now)
        log.info("backbone: the pass of %s was renewed, until %s", machine, expiry(said["certificate"]))
        return said


def _key_in(text: str) -> ec.EllipticCurvePublicKey:
    try:
        asked = x509.load_pem_x509_csr(text.encode())
    except ValueError:
        raise InvalidInput("it is no request for a certificate") from None
    key = asked.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInput("keys are of the curve P-256")
    if not asked.is_signature_valid:
        raise InvalidInput("who asks does not have the key")
    return key


def _object(payload: bytes) -> dict[str, object]:
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def is_due(joining: Joining, now: datetime) -> bool:
    """Say whether a machine is to ask for a new certificate: it ends soon, and has not ended."""
    until = expiry(joining.certificate)
    return until is not None and now < until and not is_fresh(joining.certificate, now)
