"""A small certificate authority of our own: for the backbone's server and machines, and for brokers."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from crucible import certificates
from crucible.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

AUTHORITY_LIFE: Final = timedelta(days=3650)
LIFE: Final = timedelta(days=90)
"""Of our own certificates, which are renewed by themselves."""
RENEW_BEFORE: Final = timedelta(days=30)
"""Before its end a certificate is made anew; one with a short life when a third of it is left."""
_CERTIFICATE, _KEY = "ca.crt", "ca.key"


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, in PEM."""

    certificate: str
    key: str

    def __repr__(self) -> str:
        """Tell no key."""
        return "Issued()"

    def fits(self) -> bool:
        """Say whether the certificate is for the key."""
        try:
            certificate = x509.load_pem_x509_certificate(self.certificate.encode())
            key = serialization.load_pem_private_key(self.key.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):  # the second: a key behind a passphrase
            return False
        return key.public_key() == certificate.public_key()


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs.

    Attributes:
        certificate: its own, in PEM; all who are on the backbone have it.
    """

    certificate: str
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    def has_its_key(self) -> bool:
        """Say whether the key is the certificate's."""
        return Issued(self.certificate, certificates.private_pem(self._key)).fits()

    def machine(self, identity: str, now: datetime, life: timedelta = LIFE) -> Issued:
        """Return a certificate for a machine: a client of the server, and both sides of lines to others."""
        key = certificates.fresh_key()
        return Issued(self.machine_for(identity, key.public_key(), now, life), certificates.private_pem(key))

    def machine_for(
        self, identity: str, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
    ) -> str:
        """Return the same for a key of which the machine alone has the private part."""
        purposes = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
        return self._sign(identity, [x509.DNSName(identity)], purposes, key, now, life)

    def server(self, hosts: Iterable[str], now: datetime, life: timedelta = LIFE) -> Issued:
        """Return a certificate for the server at these addresses and names."""
        names = [_host(host) for host in sorted(set(hosts))]
        key = certificates.fresh_key()
        purposes = (ExtendedKeyUsageOID.SERVER_AUTH,)
        signed = self._sign("crucible-backbone", names, purposes, key.public_key(), now, life)
        return Issued(signed, certificates.private_pem(key))

    def _sign(  # noqa: PLR0913, PLR0917 - what a certificate says
        self,
        common: str,
        names: list[x509.GeneralName],
        purposes: tuple[x509.ObjectIdentifier, ...],
        key: ec.EllipticCurvePublicKey,
        now: datetime,
        life: timedelta,
    ) -> str:
        signer = x509.load_pem_x509_certificate(self.certificate.encode())
        keys = key, self._key.public_key()
        certificate = (
            certificates.leaf(certificates.name(common), signer.subject, keys, now, life)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificates.pem(certificate)


def authority_in(folder: Path, now: datetime) -> Authority:
    """Return the authority whose files lie in a folder, made the first time.

    Raises:
        InvalidInput: what lies there is none.
    """
    certificate, key = folder / _CERTIFICATE, folder / _KEY
    if not certificate.exists() or not key.exists():
        _make(certificate, key, now)
    try:
        loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
        text = certificate.read_text()
        x509.load_pem_x509_certificate(text.encode())
    except ValueError as error:
        raise InvalidInput(f"{folder}: {_CERTIFICATE} and {_KEY} are no certificate and its key") from error
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise InvalidInput(f"{key}: not an elliptic curve key")
    return Authority(text, loaded)


def is_fresh(certificate: str, now: datetime) -> bool:
    """Say whether a certificate is good for a while yet."""
    until = expiry(certificate)
    return until is not None and until > now + min(RENEW_BEFORE, life_of(certificate) / 3)


def life_of(certificate: str) -> timedelta:
    """Return for how long a certificate that :class:`Authority` made is good in all."""
    made = x509.load_pem_x509_certificate(certificate.encode())
    return made.not_valid_after_utc - made.not_valid_before_utc - certificates.EARLY


def identity_of(certificate: str) -> str:
    """Return to whom a machine's certificate is made out; empty when it is none."""
    try:
        made = x509.load_pem_x509_certificate(certificate.encode())
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return ""
    found = names.get_values_for_type(x509.DNSName)
    return found[0] if len(found) == 1 else ""


def may_serve(certificate: str) -> bool:
    """Say whether others can come to who has a certificate: it is good for both sides of TLS."""
    try:
        made = x509.load_pem_x509_certificate(certificate.encode())
        purposes = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    except ValueError:
        return False
    return {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH} <= set(purposes)


def expiry(certificate: str) -> datetime | None:
    """Return until when a certificate is good; None when it is none."""
    try:
        return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc
    except ValueError:
        return None


def signed_by(certificate: str, authority: str) -> bool:
    """Say whether an authority signed a certificate."""
    try:
        signed = x509.load_pem_x509_certificate(certificate.encode())
        signed.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.encode()))
    except Exception:  # noqa: BLE001 - the library has one class for each way not to be signed
        return False
    return True


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file that only its owner can read, in one step."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def utc_now() -> datetime:
    """The moment, in UTC."""
    return datetime.now(UTC)


def fresh_authority(common: str, now: datetime, life: timedelta = AUTHORITY_LIFE) -> Authority:
    """Return an authority that nobody but this process has the key of, as long as it lives."""
    made = certificates.fresh_key()
    return Authority(certificates.pem(certificates.root(common, made, now, life)), made)


def _make(certificate: Path, key: Path, now: datetime) -> None:
    made = fresh_authority("crucible-backbone-ca", now)
    write_private(key, certificates.private_pem(made._key))  # noqa: SLF001 - its own file
    write_private(certificate, made.certificate)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
