"""Backups of a state folder, and its desired state as documents that can be applied again."""

from __future__ import annotations

import shutil
import sqlite3
from typing import TYPE_CHECKING, Final

from crucible.errors import InvalidInput

from .jsontypes import clone
from .ownership import StateLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from .jsontypes import Object
    from .keys import Record

_PASSING: Final = frozenset({"events", "leases.coordination.k8s.io", "pods"})
_KEPT_META: Final = ("name", "namespace", "labels", "annotations")
_GIVEN: Final = "kubectl.kubernetes.io/last-applied-configuration"


def restore_backup(state_dir: Path, backup: Path, prepare: Callable[[], object] = bool) -> None:
    """Put a backup in the place of a state folder's database. What was there is kept beside it.

    Revisions go on from the newer of the two, so that no client takes old for new. ``prepare`` runs before,
    once it is certain that no server runs on the folder.

    Raises:
        Conflict: A server runs on the folder.
        InvalidInput: The file is not a backup.
    """
    lock = StateLock(state_dir)
    try:
        restored = _newest_revision(backup)
        if restored is None:
            raise InvalidInput(f"{backup} is not a backup of a control plane")
        prepare()
        current = state_dir / "control.db"
        present = _newest_revision(current) or 0
        draft = state_dir / ".control.db.restoring"
        shutil.copyfile(backup, draft)
        draft.chmod(0o600)
        _raise_revision(draft, max(restored, present) + 1)
        if current.exists():
            current.replace(state_dir / "control.db.before-restore")
        for suffix in ("-wal", "-shm"):
            (state_dir / f"control.db{suffix}").unlink(missing_ok=True)
        draft.replace(current)
    finally:
        lock.release()


def _newest_revision(path: Path) -> int | None:
    if not path.exists():
        return None
    link = sqlite3.connect(path)
    try:
        row = link.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()
        link.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error:
        return None
    finally:
        link.close()
    return int(row[0]) if row else None


def _raise_revision(path: Path, revision: int) -> None:
    """Start history anew at ``revision``: watches from before the restore list again."""
    link = sqlite3.connect(path)
    try:
        with link:
            link.execute("DELETE FROM log")
            link.execute("INSERT OR REPLACE INTO meta VALUES ('revision', ?)", (revision,))
    finally:
        link.close()


def desired_state(records: Iterable[Record]) -> list[Object]:
    """What people asked for, definitions first, without anything a server or controller adds."""
    order = {"customresourcedefinitions.apiextensions.k8s.io": 0, "namespaces": 1}
    wanted = [r for r in records if r.key.collection not in _PASSING and not _is_builtin(r)]
    wanted.sort(key=lambda record: (order.get(record.key.collection, 2), record.key))
    return [_bare(record.body) for record in wanted]


def _is_builtin(record: Record) -> bool:
    return record.key.collection == "namespaces" and record.key.name in {"default", "kube-system"}


def _bare(body: Object) -> Object:
    kept: Object = {key: clone(value) for key, value in body.items() if key != "status"}
    meta = {key: clone(body["metadata"][key]) for key in _KEPT_META if body["metadata"].get(key)}
    if _GIVEN in meta.get("annotations", {}):
        del meta["annotations"][_GIVEN]
        if not meta["annotations"]:
            del meta["annotations"]
    kept["metadata"] = meta
    return kept
