"""Writes an image as ``docker load`` reads it. The same folder makes the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_CREATED: Final = "1970-01-01T00:00:00Z"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_WRITABLE_BY_ALL: Final = "tmp"


@dataclass(frozen=True, slots=True)
class Image:
    """What an image says of itself.

    Attributes:
        name: the name it is known by, with its tag.
        entrypoint: what it starts when nothing else is said.
        env: variables that are set.
        labels: what others read.
        user: whom it runs as when nothing else is said.
        folder: where it starts.
    """

    name: str
    entrypoint: tuple[str, ...]
    env: tuple[str, ...]
    labels: Mapping[str, str]
    user: str = "1000:1000"
    folder: str = "/plugin"


def write(image: Image, root: Path, target: Path) -> str:
    """Write an image made of a folder into a file, and return its id: the digest of its configuration."""
    layer_path = target.with_suffix(".layer")
    try:
        _write_layer(root, layer_path)
        with layer_path.open("rb") as file:
            layer = hashlib.file_digest(file, "sha256").hexdigest()
        config = json.dumps(_config(image, layer), sort_keys=True).encode()
        identity = hashlib.sha256(config).hexdigest()
        manifest = [
            {"Config": f"{identity}.json", "RepoTags": [image.name], "Layers": [f"{layer}/layer.tar"]}
        ]
        fresh = target.with_suffix(".new")
        with tarfile.open(fresh, "w", format=tarfile.USTAR_FORMAT) as out:
            with layer_path.open("rb") as file:
                out.addfile(_entry(f"{layer}/layer.tar", layer_path.stat().st_size), file)
            for name, content in (
                (f"{identity}.json", config),
                ("manifest.json", json.dumps(manifest).encode()),
            ):
                out.addfile(_entry(name, len(content)), io.BytesIO(content))
        fresh.replace(target)
    finally:
        layer_path.unlink(missing_ok=True)
    return f"sha256:{identity}"


def _write_layer(root: Path, path: Path) -> None:
    """Write a folder's files: sorted, root's, readable by all, writable by none but the scratch folder."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as out:
        for item in sorted(root.rglob("*")):
            name = str(item.relative_to(root))
            entry = _entry(name, 0)
            if item.is_symlink():
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, str(item.readlink()), 0o777
                out.addfile(entry)
            elif item.is_dir():
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == _WRITABLE_BY_ALL else 0o755
                out.addfile(entry)
            else:
                found = item.stat()
                entry.size, entry.mode = found.st_size, 0o755 if found.st_mode & 0o100 else 0o644
                with item.open("rb") as file:
                    out.addfile(entry, file)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    entry.mtime = 0
    entry.uid = entry.gid = 0
    return entry


def _config(image: Image, layer: str) -> dict[str, Any]:
    machine = os.uname().machine
    return {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "created": _CREATED,
        "config": {
            "User": image.user,
            "WorkingDir": image.folder,
            "Env": list(image.env),
            "Entrypoint": list(image.entrypoint) or None,
            "Cmd": None,
            "Labels": dict(image.labels),
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
        "history": [{"created": _CREATED, "created_by": "crucible images"}],
    }
