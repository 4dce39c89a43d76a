"""Builds the program that runs Rune scripts, once for each state of its sources."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imagelib.digest import of_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = REPOSITORY / "plugin-images/rune/host"
PLACE: Final = REPOSITORY / "build/rune"
BINARY: Final = PLACE / "crucible-rune"

# Debian's packages of a compiler as new as the one browsers are built with, and a linker with a static libc.
_PACKAGES: Final = ("cargo-web", "rustc-web", "gcc", "libc6-dev")

# The committed lock names no registry. Cargo wants the name of its own, and says it in any lock it writes.
_NEUTRAL: Final = 'source = "registry"'
_NAMED: Final = re.compile(r'^source = "registry\+.+"$', re.MULTILINE)
_PROBE: Final = """\
[package]
name = "probe"
version = "0.0.0"
edition = "2021"
[lib]
path = "lib.rs"
[dependencies]
libc = "0.2"
"""


class CannotBuild(Exception):
    """The program cannot be built here; says what is missing."""


def build(say: Callable[[str], None]) -> Path:
    """Return the program, built now unless its sources are as they were.

    Raises:
        CannotBuild: there is no compiler, or it fails.
    """
    PLACE.mkdir(parents=True, exist_ok=True)
    with _alone(PLACE / "lock"):
        stamp = PLACE / "inputs"
        inputs = of_files(SOURCES, sorted(path for path in SOURCES.rglob("*") if path.is_file()))
        if BINARY.is_file() and stamp.is_file() and stamp.read_text() == inputs:
            return BINARY
        cargo = _cargo(say)
        say("building the rune host (one to three minutes, once)")
        sources = PLACE / "source"
        shutil.rmtree(sources, ignore_errors=True)
        shutil.copytree(SOURCES, sources)
        lock = sources / "Cargo.lock"
        lock.write_text(lock.read_text().replace(_NEUTRAL, _registry(cargo)))
        built = _compile(cargo, sources)
        fresh = BINARY.with_suffix(".new")
        shutil.copy2(built, fresh)
        fresh.chmod(0o755)
        fresh.replace(BINARY)
        stamp.write_text(inputs)
    return BINARY


def _registry(cargo: str) -> str:
    """Return the line that names cargo's registry in a lock."""
    probe = PLACE / "probe"
    probe.mkdir(exist_ok=True)
    (probe / "Cargo.toml").write_text(_PROBE)
    (probe / "lib.rs").touch()
    done = subprocess.run(
        [cargo, "generate-lockfile", "--quiet"], cwd=probe, capture_output=True, text=True, check=False
    )
    lock = probe / "Cargo.lock"
    named = _NAMED.search(lock.read_text()) if lock.is_file() else None
    if named is None:
        raise CannotBuild(f"cargo reaches no registry:\n{done.stderr[-4000:]}")
    return named[0]


def _compile(cargo: str, sources: Path) -> Path:
    beside = Path(cargo).with_name("rustc")
    rustc = str(beside) if beside.exists() else "rustc"
    told = subprocess.run([rustc, "-vV"], capture_output=True, text=True, check=False)
    target = next((line[6:] for line in told.stdout.splitlines() if line.startswith("host: ")), None)
    if target is None:
        raise CannotBuild(f"{rustc} does not say what it builds for: {told.stderr.strip()}")
    done = subprocess.run(
        [cargo, "build", "--quiet", "--release", "--locked", "--target", target],
        cwd=sources,
        env={
            **os.environ,
            "CARGO_TARGET_DIR": str(PLACE / "target"),
            "RUSTFLAGS": f"-C target-feature=+crt-static --remap-path-prefix={sources}=.",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CannotBuild(f"cargo cannot build the rune host:\n{done.stderr[-4000:]}")
    return PLACE / "target" / target / "release" / BINARY.name


def _cargo(say: Callable[[str], None]) -> str:
    found = shutil.which("cargo")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"installing {', '.join(_PACKAGES)}")
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *_PACKAGES]):
            subprocess.run(
                ["/usr/bin/apt-get", *command],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                check=False,
            )
        found = shutil.which("cargo")
    if found is None:
        raise CannotBuild(
            "the rune host needs a Rust compiler, 1.85 or newer: install one so that cargo is on PATH "
            f"(on Debian: apt-get install {' '.join(_PACKAGES)}), or run this as root on Debian"
        )
    return found


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one builder in at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
