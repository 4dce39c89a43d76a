"""What is known of Secrets: on this machine as the control plane keeps them, on a cluster their names."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from typing import TYPE_CHECKING, Any, Final

from crucible.errors import NotFound
from crucible.model.secret import SecretSeen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

COLLECTION: Final = "secrets"
_KEY_BYTES: Final = 32


class LocalSecrets:
    """The Secrets of a local control plane, read when they are wanted; none is kept here."""

    def __init__(self, find: Callable[[str, str], Mapping[str, Any] | None], key: bytes) -> None:
        """Look through ``find``, by namespace and name; ``key`` makes versions that nobody else can make."""
        self._find = find
        self._key = key

    def look(self, namespace: str, names: Sequence[str]) -> tuple[SecretSeen, ...]:
        """Return which there are, their keys, and whether they changed."""
        return tuple(self._seen(namespace, name) for name in names)

    def read(self, namespace: str, name: str) -> dict[str, bytes]:
        """Return what is in a Secret, by key.

        Raises:
            NotFound: there is none of that name.
        """
        found = self._find(namespace, name)
        if found is None:
            raise NotFound(f"there is no Secret {name} in namespace {namespace}")
        return {key: _decoded(value) for key, value in (found.get("data") or {}).items()}

    def _seen(self, namespace: str, name: str) -> SecretSeen:
        try:
            data = self.read(namespace, name)
        except NotFound:
            return SecretSeen(name, there=False)
        return SecretSeen(name, there=True, keys=frozenset(data), version=version_of(data, self._key))


class MountedSecrets:
    """The Secrets of a cluster: the kubelet mounts them, so the operator need not be allowed to see any."""

    def look(self, namespace: str, names: Sequence[str]) -> tuple[SecretSeen, ...]:
        """Return them as there: a pod whose Secret is missing says so itself."""
        del namespace
        return tuple(SecretSeen(name, there=True) for name in names)


def wanted_by(plugin: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the Secrets that a Plugin object names, however wrong the rest of it is."""
    capabilities = (plugin.get("spec") or {}).get("capabilities") or {}
    named = capabilities.get("secrets") if isinstance(capabilities, dict) else ()
    return tuple(name for name in named or () if isinstance(name, str))


def version_of(data: Mapping[str, bytes], key: bytes) -> str:
    """Return a keyed digest of a Secret's content.

    A plain one would tell a weak password to whoever tries them all; without the key this one tells nothing.
    """
    text = json.dumps([[name, base64.b64encode(data[name]).decode()] for name in sorted(data)])
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def remembered_key(path: Path) -> bytes:
    """Return the key that is kept in a file only its owner may read; made up the first time.

    Where it is lost, every plugin with Secrets is restarted once.
    """
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        found = b""
    if len(found) == _KEY_BYTES:
        return found
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600, exist_ok=False)
    fresh.write_bytes(secrets.token_bytes(_KEY_BYTES))
    fresh.replace(path)
    return path.read_bytes()


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value)
    except (binascii.Error, ValueError):
        return b""
