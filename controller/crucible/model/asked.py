"""What a person asks of a Plugin by an annotation, and what the Plugin was like when it was asked.

A rollback is in the place of one revision, and the controller names revisions. Where it has not looked at the
manifest yet (the plugin is held still, suspended, or nobody works just now) the one that asks cannot know its
name; then what counts is a digest of what the revision will be made from.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from crucible.model import names

if TYPE_CHECKING:
    from collections.abc import Mapping

UNKNOWN: Final = "-"
"""Stands where the revision that the manifest asks for has no name yet."""
MOST: Final = 256
"""Characters of such an annotation that count."""
_LENGTH: Final = 16
_APART: Final = frozenset({"replicas", "suspend", "update"})
"""Fields of a spec that count as the manifest has them, whichever revision runs."""


@dataclass(frozen=True, slots=True)
class Rollback:
    """The annotation ``FROM TO`` or ``FROM TO MANIFEST``.

    Attributes:
        failed: in the place of which revision; :data:`UNKNOWN` where that has no name yet.
        target: which revision is to run.
        manifest: digest of what the manifest was when it was asked; empty: not said.
    """

    failed: str = ""
    target: str = ""
    manifest: str = ""


def read_rollback(text: str) -> Rollback:
    """Read the annotation; what is missing is empty."""
    words = text.split(" ")
    return Rollback(*words) if 1 < len(words) <= len(Rollback.__slots__) else Rollback(text)


def manifest_digest(plugin: Mapping[str, Any]) -> str:
    """Return a digest of all that makes the revision of a Plugin object: spec, files, restart."""
    spec = plugin.get("spec")
    made_of = {key: spec[key] for key in spec if key not in _APART} if isinstance(spec, dict) else spec
    annotations = plugin["metadata"].get("annotations") or {}
    asked = [annotations.get(key, "") for key in (names.RESTARTED_AT, names.SOURCE_DIGEST)]
    text = json.dumps([made_of, asked], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def looked_at(meta: Mapping[str, Any]) -> str:
    """Return what tells the manifest and the restart that an object has now from all others it had."""
    annotations = meta.get("annotations") or {}
    asked = [annotations.get(key, "") for key in (names.RESTARTED_AT, names.SOURCE_DIGEST)]
    return hashlib.sha256(f"{meta.get('generation', 1)} {asked}".encode()).hexdigest()[:_LENGTH]
