"""A small certificate authority of the server's own, and the certificates it issues."""

from __future__ import annotations

import ipaddress
import os
import ssl
from asyncio.sslproto import SSLProtocol
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from crucible import certificates

if TYPE_CHECKING:
    from pathlib import Path

CA_LIFE: Final = timedelta(days=3650)
LEAF_LIFE: Final = timedelta(days=397)
RENEW_BEFORE: Final = timedelta(days=30)
READ_BUFFER: Final = 32 * 1024


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the PEM files are."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path


def prepare_tls(folder: Path, now: datetime) -> TlsFiles:
    """Make what is missing or about to expire; keep the rest, so that kubeconfigs stay valid."""
    files = TlsFiles(
        *(folder / n for n in ("ca.crt", "server.crt", "server.key", "client.crt", "client.key"))
    )
    ca_key_file = folder / "ca.key"
    if not _fresh(files.ca, now) or not ca_key_file.exists():
        _make_ca(files.ca, ca_key_file, now)
        files.server_cert.unlink(missing_ok=True)
        files.client_cert.unlink(missing_ok=True)
    if not _fresh(files.server_cert, now) or not files.server_key.exists():
        _issue(folder, files.server_cert, files.server_key, now, client=False)
    if not _fresh(files.client_cert, now) or not files.client_key.exists():
        _issue(folder, files.client_cert, files.client_key, now, client=True)
    return files


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 or later; a client certificate is checked where one is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(files.server_cert, files.server_key)
    context.load_verify_locations(files.ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


def use_small_read_buffers() -> None:
    """Have asyncio give each TLS connection a read buffer of two records instead of 256 KiB.

    It keeps the buffer as long as the connection, and every watch is one. asyncio has no setting for it.
    """
    SSLProtocol.max_size = READ_BUFFER


def write_private(path: Path, content: bytes) -> None:
    """Write a file only its owner can read, in one step."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _fresh(path: Path, now: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return False
    return certificate.not_valid_after_utc > now + RENEW_BEFORE


def _make_ca(cert_file: Path, key_file: Path, now: datetime) -> None:
    key = certificates.fresh_key()
    _write(key_file, cert_file, key, certificates.root("crucible-local-ca", key, now, CA_LIFE))


def _issue(folder: Path, cert_file: Path, key_file: Path, now: datetime, *, client: bool) -> None:
    ca = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    ca_key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise TypeError("ca.key is not an elliptic curve key")
    key = certificates.fresh_key()
    subject = (
        certificates.name("crucible-admin", "system:masters")
        if client
        else certificates.name("crucible-apiserver")
    )
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
    keys = key.public_key(), ca_key.public_key()
    builder = certificates.leaf(subject, ca.subject, keys, now, LEAF_LIFE).add_extension(
        x509.ExtendedKeyUsage([purpose]), critical=False
    )
    if not client:
        loopback = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
        names = [x509.DNSName("localhost"), *(x509.IPAddress(address) for address in loopback)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    _write(key_file, cert_file, key, builder.sign(ca_key, hashes.SHA256()))


def _write(
    key_file: Path, cert_file: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
) -> None:
    write_private(key_file, certificates.private_pem(key).encode())
    write_private(cert_file, certificates.pem(certificate).encode())


def utc_now() -> datetime:
    """The moment, in UTC."""
    return datetime.now(UTC)
