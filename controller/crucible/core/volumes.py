"""What an administrator may offer as a volume. Pure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""What a volume may be called."""

_SYSTEM: Final = (
    *("/proc", "/sys", "/dev", "/run", "/etc", "/boot"),
    *("/var/run", "/var/lib/docker", "/var/lib/containerd", "/var/lib/kubelet", "/var/lib/crucible"),
)
_OF_A_HOME: Final = (
    *(".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".config", ".local", ".netrc"),
    *(".git-credentials", ".password-store", ".mozilla", ".bashrc", ".profile", ".bash_history"),
)


def protected(homes: Iterable[Path], more: Iterable[Path]) -> tuple[Path, ...]:
    """Return the paths that no volume may show.

    Args:
        homes: home folders, of whose secrets none may be shown.
        more: what belongs to the controller: its state folder, its engine's socket.
    """
    hidden = (home / name for home in homes for name in _OF_A_HOME)
    return (*map(Path, _SYSTEM), *hidden, *more)


def problem_of(path: Path, closed: Iterable[Path], others: Iterable[Path]) -> str:
    """Return why a folder may not be a volume, empty where it may.

    Args:
        path: the folder; absolute, without links.
        closed: what no volume may show.
        others: the folders of the other volumes.
    """
    if path == Path("/"):
        return "is the whole machine: name one folder of it"
    for each in closed:
        if path.is_relative_to(each):
            return f"is {each} or lies in it, which no plugin may see: name another folder"
        if each.is_relative_to(path):
            return f"would show {each}: name a folder that does not hold it"
    for each in others:
        if each.is_relative_to(path) or path.is_relative_to(each):
            return f"overlaps with {each}, which is a volume too: name folders that lie apart"
    return ""
