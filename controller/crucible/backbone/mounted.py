"""Certificates that somebody else keeps: files ``ca.crt``, ``tls.crt`` and ``tls.key`` of one folder.

It is how a Secret of Kubernetes' type ``kubernetes.io/tls`` is mounted, whoever made it. The kubelet puts new
ones in their place by themselves: whoever uses them reads them again and again. It does so all at once, by a
link ``..data`` to a folder that never changes: so all are read by a descriptor of that folder. Where there is
none, what was read counts once it is read again the same.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from crucible.backbone.authority import Issued
from crucible.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

AUTHORITY, CERTIFICATE, KEY = "ca.crt", "tls.crt", "tls.key"
_FILES: Final = (AUTHORITY, CERTIFICATE, KEY)
_ATOMIC: Final = "..data"
_LARGEST: Final = 256 * 1024
_TRIES: Final = 5


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
    texts = _at_one_moment(folder)
    authority = _certificates(texts[AUTHORITY], folder / AUTHORITY)
    shown = Issued(_certificates(texts[CERTIFICATE], folder / CERTIFICATE), texts[KEY])
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
    return _certificates(_text(path), path)


def _certificates(text: str, path: Path) -> str:
    try:
        found = x509.load_pem_x509_certificates(text.encode())
    except ValueError as error:
        raise InvalidInput(f"{path}: it holds no certificates in PEM") from error
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in found)


def _at_one_moment(folder: Path) -> Mapping[str, str]:
    """Return what all files say, none of them older or newer than the others.

    Raises:
        InvalidInput: one is missing, too large or no text, or they change faster than they can be read.
    """
    before: Mapping[str, str] | None = None
    for turn in range(_TRIES):
        with _opened(folder) as (place, whole):
            try:
                found = {name: _text(folder / name, place) for name in _FILES}
            except InvalidInput:
                if not whole or turn == _TRIES - 1:
                    raise
                continue  # another folder took its place, and it is being removed
        if whole or found == before:
            return found
        before = found
    raise InvalidInput(f"{folder}: its files change faster than they can be read")


@contextmanager
def _opened(folder: Path) -> Iterator[tuple[int, bool]]:
    """Yield a descriptor by which the files are read, and whether what lies there never changes."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        place, whole = os.open(folder / _ATOMIC, flags), True
    except OSError:
        try:
            place, whole = os.open(folder, flags), False
        except OSError as error:
            raise InvalidInput(
                f"{folder}: {error.strerror}: mount the Secret, docs/bus.md says which"
            ) from error
    try:
        yield place, whole
    finally:
        os.close(place)


def _text(path: Path, folder: int | None = None) -> str:
    """Return what a file says; of an open folder, where one is given."""
    try:
        name = path if folder is None else Path(path.name)
        opened = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(opened, "rb") as file:
            found = file.read(_LARGEST + 1)
        if len(found) > _LARGEST:
            raise InvalidInput(f"{path}: it is larger than {_LARGEST // 1024} KiB")
        return found.decode("ascii")
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}: mount the Secret, docs/bus.md says which") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: it is not PEM") from error
