"""What the suite's plugins are granted in a sandbox of their own: a Secret, and two volumes of this host."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from crucible.errors import NotFound
from crucible.model.enforcement import Control, Level
from crucible.model.volume import HostVolume, Mount, access

if TYPE_CHECKING:
    from pathlib import Path

    from crucible.model.enforcement import Capabilities

TOKEN: Final = b"the suite's own secret"
_SECRETS: Final = {"bait": {"token": TOKEN}, "other": {"token": b"nobody was granted this"}}
_READ: Final = Mount("suite-notes", "/data/notes", writable=False)
_WRITE: Final = Mount("suite-drafts", "/data/drafts", writable=True)
_GROUP: Final = 54_322


@dataclass(frozen=True, slots=True)
class Grants:
    """What a runtime was opened with, for the suite to ask for.

    Attributes:
        volumes: folders of this host.
    """

    volumes: tuple[HostVolume, ...]

    def secrets_of(self, namespace: str, name: str) -> dict[str, bytes]:
        """Return what is in a Secret, as runtimes ask for it."""
        if name not in _SECRETS:
            raise NotFound(f"there is no Secret {name} in {namespace}")
        return dict(_SECRETS[name])

    def asked(self, here: Capabilities) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return fields of a workload that ask for what a runtime has of it, and the program's config."""
        levels = {entry.control: entry.level for entry in here.controls}
        fields: dict[str, Any] = {}
        config: dict[str, Any] = {}
        if levels[Control.SECRETS] is Level.ENFORCED:
            fields["secrets"] = (("bait", "1"),)
            config |= {"secret": "/secrets/bait/token", "digest": hashlib.sha256(TOKEN).hexdigest()}
        if {access(each.volume, writable=each.writable) for each in (_READ, _WRITE)} <= here.volumes:
            fields["mounts"] = (_READ, _WRITE)
            config |= {"read": _READ.place, "write": _WRITE.place}
        return fields, config


def lay_out(place: Path) -> Grants:
    """Make the volumes below an empty folder, with something in them that leads out."""
    place.mkdir(mode=0o755)
    beside = place / "beside.txt"
    beside.write_text("not in a volume")
    beside.chmod(0o644)
    folders = []
    for mount in (_READ, _WRITE):
        folder = place / mount.volume
        folder.mkdir()
        if os.geteuid() == 0:
            os.chown(folder, -1, _GROUP)
        folder.chmod(0o2775)
        folders.append(HostVolume(mount.volume, folder.resolve(), mount.writable))
    notes = place / _READ.volume
    (notes / "note.txt").write_text("a note")
    (notes / "note.txt").chmod(0o644)
    (notes / "out").symlink_to(beside)
    return Grants(tuple(folders))
