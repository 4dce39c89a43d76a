"""Snapshots: the files of plugins, kept by what they contain, never changed once made."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from crucible.errors import InvalidSource, NotFound, Unavailable
from crucible.model.status import SourceReport
from crucible.packages.folder import File, Link, digest_of, inline_tree, read_folder

if TYPE_CHECKING:
    from collections.abc import Collection

    from crucible.model.manifest import PluginSpec
    from crucible.model.plugin import Identity
    from crucible.packages.folder import Tree


class SnapshotStore:
    """A folder of snapshots, each named by its digest.

    A snapshot appears under its name only when it is complete, so a controller that dies while it
    takes one leaves nothing that looks like one.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._fresh: set[str] = set()
        self._making: set[str] = set()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path_of(self, digest: str) -> Path:
        """Return the folder of a snapshot.

        Raises:
            NotFound: there is none with this digest.
        """
        path = self._path(digest)
        if not path.is_dir():
            raise NotFound(f"no snapshot {digest}")
        return path

    async def resolve(self, identity: Identity, spec: PluginSpec, known: SourceReport | None) -> SourceReport:
        """Return the digest of a Plugin's source, taking a snapshot where there is none yet.

        A folder is read when the Plugin is first seen, when ``spec.source.path`` changes, and when a
        person applies it anew with other content or asks for a restart; never merely because it changed.

        Raises:
            InvalidSource: the source cannot be had, or lacks the entrypoint.
            Unavailable: the disk takes no snapshot now.
        """
        source = spec.source
        wanted = occasion(identity, spec)
        if known is not None and known.resolved_for == wanted and self._path(known.digest).is_dir():
            return known
        if source.inline is not None:
            return await self._keep(inline_tree(source.inline), wanted, spec)
        if source.path is None:
            raise InvalidSource(f"source.{source.kind} is no files")
        if not source.path.startswith("/"):
            raise InvalidSource(
                f"path {source.path!r} is relative, and only 'crucible apply' knows to what: "
                "apply it with that, or write an absolute path"
            )
        tree = await asyncio.to_thread(read_folder, Path(source.path))
        return await self._keep(tree, wanted, spec)

    def sweep(self, wanted: Collection[str]) -> tuple[str, ...]:
        """Delete every snapshot that is not wanted, and what an interrupted one left; return the digests.

        One resolved since the last sweep stays: its Plugin may not have said so yet.
        """
        spared, self._fresh = self._fresh, set()
        gone = []
        for entry in self._root.iterdir():
            digest = f"sha256:{entry.name}"
            if digest not in wanted and digest not in spared and entry.name not in self._making:
                shutil.rmtree(entry, ignore_errors=True)
                if not entry.exists():
                    gone.append(digest)
        return tuple(gone)

    async def _keep(self, tree: Tree, resolved_for: str, spec: PluginSpec) -> SourceReport:
        if spec.entrypoint[0] not in tree:
            raise InvalidSource(f"the entrypoint {spec.entrypoint[0]} is not among its {len(tree)} files")
        digest = digest_of(tree)
        self._fresh.add(digest)
        if not self._path(digest).is_dir():
            try:
                await asyncio.to_thread(self._write, digest, tree)
            except OSError as error:
                raise Unavailable(f"its snapshot cannot be kept: {error}") from error
        return SourceReport(digest=digest, resolved_for=resolved_for)

    def _path(self, digest: str) -> Path:
        return self._root / digest.removeprefix("sha256:")

    def _write(self, digest: str, tree: Tree) -> None:
        """Make a snapshot; two that make the same one at once both succeed."""
        folder = Path(tempfile.mkdtemp(prefix="making-", dir=self._root))
        self._making.add(folder.name)
        try:
            for name, entry in tree.items():
                place = folder / name
                place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                match entry:
                    case File(content=content, executable=executable):
                        place.write_bytes(content)
                        place.chmod(0o755 if executable else 0o644)
                    case Link(target=target):
                        place.symlink_to(target)
            _open_folders(folder)
            try:
                folder.rename(self._path(digest))
            except OSError:
                if not self._path(digest).is_dir():
                    raise
        finally:
            self._making.discard(folder.name)
            shutil.rmtree(folder, ignore_errors=True)  # what cannot be deleted now, a sweep deletes


def occasion(identity: Identity, spec: PluginSpec) -> str:
    """Return a word that changes exactly when the source has to be looked at again."""
    source = spec.source
    if source.inline is not None:
        return f"inline {identity.generation}"
    told = (source.path, spec.entrypoint[0], identity.source_digest, identity.restart)
    return f"path {hashlib.sha256(repr(told).encode()).hexdigest()[:16]}"


def _open_folders(top: Path) -> None:
    """Let another uid, inside its sandbox, walk a snapshot, whatever the umask was."""
    top.chmod(0o755)
    for path in top.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
