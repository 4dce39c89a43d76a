"""Whether the Secrets that a manifest names are there, and the files that a plugin finds of them. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crucible.model.manifest import PluginSpec
    from crucible.model.secret import SecretSeen

FOLDER: Final = "/secrets"
"""Where a plugin finds each of its Secrets: a folder of its name, in it a file for each key."""
FILES_LIMIT: Final = 128
"""Keys that the Secrets of one plugin may have in all."""
VALUE_LIMIT: Final = 32768
"""Bytes of a variable's value, as for those in the manifest itself."""
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_TOLD: Final = 8


def missing(spec: PluginSpec, seen: Sequence[SecretSeen]) -> str:
    """Return which Secret or key is not there, and what to do; empty while all are."""
    known = {each.name: each for each in seen}
    absent = [name for name in spec.capabilities.secrets if name in known and not known[name].there]
    if absent:
        several = len(absent) > 1
        return (
            f"spec.capabilities.secrets: Secret{'s' if several else ''} {', '.join(absent)} "
            f"{'are' if several else 'is'} not in this namespace: "
            f"make it with 'kubectl create secret generic {absent[0]} --from-literal=KEY=VALUE'; "
            "the plugin then starts by itself"
        )
    for index, variable in enumerate(spec.env):
        found = known.get(variable.secret.name) if variable.secret is not None else None
        if variable.secret is None or found is None or found.keys is None:
            continue
        if variable.secret.key not in found.keys:
            has = ", ".join(sorted(found.keys)[:_TOLD]) or "nothing"
            return (
                f"spec.env[{index}].secret.key: Secret {found.name} has no key {variable.secret.key}, only "
                f"{has}: add it to the Secret; the plugin then starts by itself"
            )
    return ""


def files_of(secrets: Mapping[str, Mapping[str, bytes]]) -> dict[str, bytes]:
    """Return the files that Secrets become, by their path below ``FOLDER``.

    Raises:
        ValueError: there are too many, or a key is no name that a file can have.
    """
    files: dict[str, bytes] = {}
    for name, data in sorted(secrets.items()):
        for key, content in sorted(data.items()):
            if _KEY.fullmatch(key) is None or key in {".", ".."}:
                raise ValueError(f"Secret {name} has a key that is no file name: rename it")
            files[f"{name}/{key}"] = content
    if len(files) > FILES_LIMIT:
        raise ValueError(f"its Secrets have {len(files)} keys in all, {FILES_LIMIT} at most can be shown")
    return files


def value_of(content: bytes, place: str) -> str:
    """Return what is in a Secret as the value of a variable.

    Args:
        content: what is in it.
        place: which key of which Secret, for people.

    Raises:
        ValueError: no variable can hold it.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or len(content) > VALUE_LIMIT:
        raise ValueError(
            f"{place} is no text, or longer than {VALUE_LIMIT} bytes: no variable can hold it, "
            f"read it from its file in {FOLDER}"
        )
    return text
