"""What all certificates of ours have in common: one curve, whom they name, for how long, and for what."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from datetime import datetime

EARLY: Final = timedelta(minutes=5)
"""By which clocks may differ: a certificate is good from so long before it was made."""


def fresh_key() -> ec.EllipticCurvePrivateKey:
    """Return a key that nobody has had before."""
    return ec.generate_private_key(ec.SECP256R1())


def name(common: str, organization: str = "crucible") -> x509.Name:
    """Return whom a certificate is made out to, cut to what fits."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common[:64]),
        ]
    )


def leaf(
    subject: x509.Name,
    issuer: x509.Name,
    keys: tuple[ec.EllipticCurvePublicKey, ec.EllipticCurvePublicKey],
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    """Begin a certificate that signs no others.

    Args:
        subject: whom it names.
        issuer: who will sign it.
        keys: the subject's and the issuer's.
        now: when it is made.
        life: how long it is good.
    """
    own, signing = keys
    return (
        _begun(subject, issuer, own, now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing), critical=False)
        .add_extension(_usage(signs=False), critical=True)
    )


def root(common: str, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta) -> x509.Certificate:
    """Return the certificate of an authority, which signs itself and none but leaves."""
    own, public = name(common), key.public_key()
    return (
        _begun(own, own, public, now, life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def pem(certificate: x509.Certificate) -> str:
    """Return a certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a key in PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLY)
        .not_valid_after(now + life)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
