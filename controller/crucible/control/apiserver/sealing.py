"""Secrets encrypted at rest, with a key file of the user's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crucible.errors import InvalidInput

from .tls import write_private

if TYPE_CHECKING:
    from pathlib import Path

    from .keys import Key

MARK: Final = b"\x01sealed:"
NONCE: Final = 12
KEY_BYTES: Final = 32


class FileSeal:
    """Seals the ``secrets`` collection with AES-256-GCM; the object's address is authenticated with it.

    Raises:
        InvalidInput: The key file does not hold 32 bytes.
    """

    def __init__(self, key_file: Path) -> None:
        if not key_file.exists():
            write_private(key_file, os.urandom(KEY_BYTES))
        key = key_file.read_bytes()
        if len(key) != KEY_BYTES:
            raise InvalidInput(f"{key_file} must hold exactly {KEY_BYTES} bytes")
        self._cipher = AESGCM(key)
        self._path = key_file

    def close(self, key: Key, raw: bytes) -> bytes:
        """Encrypted bytes for Secrets; other kinds as they are."""
        if key.collection != "secrets":
            return raw
        nonce = os.urandom(NONCE)
        return MARK + nonce + self._cipher.encrypt(nonce, raw, "/".join(key).encode())

    def open(self, key: Key, stored: bytes) -> bytes:
        """The bytes sealed; what was stored before there was a key is taken as it is."""
        if not stored.startswith(MARK):
            return stored
        nonce, sealed = stored[len(MARK) : len(MARK) + NONCE], stored[len(MARK) + NONCE :]
        try:
            return self._cipher.decrypt(nonce, sealed, "/".join(key).encode())
        except InvalidTag as error:
            raise InvalidInput(
                f"{self._path} is not the key Secret {key.namespace}/{key.name} was sealed with"
            ) from error
