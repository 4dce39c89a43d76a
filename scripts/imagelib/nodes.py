"""Hands images to nodes of a cluster without a registry: those of kind, or the containerd of this host."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

KINDS: Final = "docker, kind, kind:CLUSTER or containerd"
_SECONDS: Final = 300
_NAME: Final = re.compile(r"[a-z0-9.-]+")


class NotTaken(Exception):
    """The nodes did not take an image; the text says what to do."""


def command(where: str, path: Path) -> list[str]:
    """Return what hands an image to the nodes that ``where`` names.

    Raises:
        NotTaken: ``where`` names none.
    """
    kind, _, cluster = where.partition(":")
    if where == "containerd":
        return ["ctr", "--namespace", "k8s.io", "images", "import", str(path)]
    if kind == "kind" and (_NAME.fullmatch(cluster) or where == "kind"):
        return ["kind", "load", "image-archive", str(path), "--name", cluster or "kind"]
    raise NotTaken(f"--into {where!r}: say {KINDS}")


def hand_over(where: str, path: Path) -> None:
    """Hand an image to every node that ``where`` names.

    Raises:
        NotTaken: ``where`` names none, its program is not there, or it failed.
    """
    argv = command(where, path)
    if shutil.which(argv[0]) is None:
        raise NotTaken(f"there is no `{argv[0]}` on PATH, which loads images into {where}")
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NotTaken(f"`{' '.join(argv)}` did not end within {_SECONDS} s") from None
    if done.returncode:
        raise NotTaken(f"`{' '.join(argv)}` failed: {(done.stderr or done.stdout).strip()}")
