"""Docker Compose, version 2: what is there, or Debian's. Version 1 locks itself up at the sizes measured."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / ".tools/bin"
RELEASE = "trixie"  # the first of Debian's with version 2
SECONDS = 300
PROGRAM = "usr/libexec/docker/cli-plugins/docker-compose"


def command() -> list[str]:
    """Return how Compose is called here; empty where it cannot be had."""
    for words in (["docker", "compose"], ["docker-compose"], [str(TOOLS / "docker-compose")]):
        if _is_second(words):
            return words
    try:
        words = [str(_fetch())]
    except (OSError, subprocess.SubprocessError):
        return []
    return words if _is_second(words) else []


def _is_second(words: list[str]) -> bool:
    if not shutil.which(words[0]):
        return False
    found = subprocess.run([*words, "version", "--short"], capture_output=True, text=True, check=False)
    return found.returncode == 0 and not found.stdout.startswith("1.")


def _fetch() -> Path:
    """Take Debian's package apart, and install nothing."""
    target = TOOLS / "docker-compose"
    with tempfile.TemporaryDirectory(prefix="crucible-compose-") as folder:
        place = Path(folder)
        for needed in ("lists/partial", "cache/archives/partial"):
            (place / needed).mkdir(parents=True)
        here = platform.freedesktop_os_release()["VERSION_CODENAME"]
        named = Path("/etc/apt/sources.list.d/debian.sources").read_text()
        (place / "debian.sources").write_text(named.replace(here, RELEASE))
        options = [
            *("-o", f"Dir::Etc::sourcelist={place}/debian.sources", "-o", "Dir::Etc::sourceparts=/dev/null"),
            *("-o", f"Dir::State::lists={place}/lists", "-o", f"Dir::Cache={place}/cache"),
            *("-o", f"APT::Sandbox::User={os.environ.get('USER', 'root')}"),
        ]
        for words in ("update", "download docker-compose"):
            argv = ["apt-get", *options, *words.split()]
            subprocess.run(argv, check=True, cwd=place, capture_output=True, timeout=SECONDS)
        subprocess.run(["dpkg", "-x", *place.glob("*.deb"), place / "root"], check=True)
        TOOLS.mkdir(parents=True, exist_ok=True)
        shutil.copy(place / "root" / PROGRAM, target)
    return target
