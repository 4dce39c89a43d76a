"""Certificates that somebody else keeps: files ``ca.crt``, ``tls.crt`` and ``tls.key`` of one folder.

It is how a Secret of Kubernetes' type ``kubernetes.io/tls`` is mounted, whoever made it. The kubelet puts new
ones in their place by themselves: whoever uses them reads them again and again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from crucible.backbone.authority import Issued
from crucible.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

AUTHORITY, CERTIFICATE, KEY = "ca.crt", "tls.crt", "tls.key"
_LARGEST: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Papers:
    """What somebody shows, and who vouches for others.

    Attributes:
        authority: certificates of who vouches, in PEM, and nothing else.
        shown: our own certificate, with those in between, and its key.
    """

    authority: str
    shown: Issued

    def names(self) -> tuple[str, ...]:
        """Return the names that our own certificate is made out to."""
        leaf = x509.load_pem_x509_certificate(self.shown.certificate.encode())
        try:
            found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return ()
        return tuple(found.get_values_for_type(x509.DNSName))


def papers_in(folder: Path, *, name: str = "") -> Papers:
    """Read a folder.

    Args:
        folder: which.
        name: to which the certificate has to be made out; empty: to any.

    Raises:
        InvalidInput: a file is missing, is no certificate or key, or does not belong to the others.
    """
    authority = certificates_in(folder / AUTHORITY)
    shown = Issued(certificates_in(folder / CERTIFICATE), _text(folder / KEY))
    if not shown.fits():
        raise InvalidInput(f"{folder}: {KEY} is not the key of {CERTIFICATE}")
    found = Papers(authority, shown)
    if name and name not in found.names():
        raise InvalidInput(
            f"{folder / CERTIFICATE}: it is not made out to the DNS name {name!r}: make one that is"
        )
    return found


def certificates_in(path: Path) -> str:
    """Return the certificates of a file and nothing else of it: a key beside them stays where it is.

    Raises:
        InvalidInput: there are none.
    """
    try:
        found = x509.load_pem_x509_certificates(_text(path).encode())
    except ValueError as error:
        raise InvalidInput(f"{path}: it holds no certificates in PEM") from error
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in found)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = file.read(_LARGEST + 1)
        if len(found) > _LARGEST:
            raise InvalidInput(f"{path}: it is larger than {_LARGEST // 1024} KiB")
        return found.decode("ascii")
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}: mount the Secret, docs/bus.md says which") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: it is not PEM") from error
