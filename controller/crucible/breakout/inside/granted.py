"""Does with what it was granted, a Secret and two volumes, more than it was granted."""

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Any

from outcome import Attempt, Outcome, got, nothing


def attempts(config: dict[str, Any]) -> dict[str, Attempt]:
    """Return what to try.

    Of ``config``: ``secret`` is a file of a Secret and ``digest`` its SHA-256, ``read`` and ``write`` are
    folders of volumes. What is not there was not granted.
    """
    found: dict[str, Attempt] = {}
    if config.get("secret"):
        found |= secret_attempts(config["secret"], config["digest"])
    if config.get("read"):
        found |= volume_attempts(config["read"], config["write"])
    return found


def secret_attempts(path: str, digest: str) -> dict[str, Attempt]:
    """Return what to try with a Secret."""
    own = partial(read_secret, path, digest)
    return {
        "change a secret": Attempt("secrets", partial(append, path), own),
        "put another in a secret's place": Attempt("secrets", partial(replace, path), own),
        "add a secret": Attempt("secrets", partial(create, f"{os.path.dirname(path)}/more"), own),
        "remove a secret": Attempt("secrets", partial(remove, path), own),
        "show a secret to others": Attempt("secrets", partial(loosen, path), own),
        "read a secret that was not granted": Attempt("secrets", partial(read, "/secrets/other/token"), own),
        "find a secret where all can see it": Attempt("secrets", partial(find_outside, digest), own),
    }


def volume_attempts(reading: str, writing: str) -> dict[str, Attempt]:
    """Return what to try with volumes."""
    note, mine = partial(read_note, f"{reading}/note.txt"), partial(write_note, f"{writing}/mine.txt")
    return {
        "write to a volume for reading": Attempt("files", partial(create, f"{reading}/new.txt"), mine),
        "change a file of a volume for reading": Attempt(
            "files", partial(append, f"{reading}/note.txt"), note
        ),
        "remove a file of a volume for reading": Attempt(
            "files", partial(remove, f"{reading}/note.txt"), note
        ),
        "follow a link out of a volume": Attempt("files", partial(read, f"{reading}/out"), note),
        "climb out of a volume": Attempt("files", partial(climb, reading, writing), note),
        "see a volume that was not granted": Attempt("files", partial(look, "/data/other"), note),
        "make a device in a volume": Attempt("files", partial(make_device, f"{writing}/device"), mine),
    }


def append(path: str) -> Outcome:
    """Change a file."""
    with open(path, "ab") as file:
        file.write(b"more")
    return got(f"changed {path}")


def replace(path: str) -> Outcome:
    """Put another file in its place."""
    Path("/tmp/another").write_text("another")
    os.replace("/tmp/another", path)
    return got(f"replaced {path}")


def create(path: str) -> Outcome:
    """Make a file."""
    with open(path, "xb"):
        return got(f"made {path}")


def remove(path: str) -> Outcome:
    """Remove a file."""
    os.unlink(path)
    return got(f"removed {path}")


def loosen(path: str) -> Outcome:
    """Let everyone change a file."""
    os.chmod(path, 0o666)  # noqa: S103 - tried
    return got(f"loosened {path}")


def read(path: str) -> Outcome:
    """Read what it was not granted."""
    return got(f"read {len(Path(path).read_bytes())} bytes of {path}")


def look(path: str) -> Outcome:
    """List a folder that it was not granted."""
    return got(f"saw {os.listdir(path)[:5]}")


def climb(*granted: str) -> Outcome:
    """Go up from a volume."""
    above = set(os.listdir(f"{granted[0]}/..")) - {os.path.basename(path) for path in granted}
    return got(f"saw {sorted(above)}") if above else nothing("only what was granted is there")


def find_outside(digest: str) -> Outcome:
    """Look for a Secret in what others see of a process: its words and its variables."""
    for words in (Path("/proc/1/cmdline").read_bytes(), Path("/proc/self/cmdline").read_bytes()):
        if any(hashlib.sha256(word).hexdigest() == digest for word in words.split(b"\0")):
            return got("it is on a command line")
    values = (value.encode() for value in os.environ.values())
    if any(hashlib.sha256(value).hexdigest() == digest for value in values):
        return got("it is in the environment")
    return nothing("it is in its file alone")


def make_device(path: str) -> Outcome:
    """Make a device file for the host's memory."""
    os.mknod(path, 0o20666, os.makedev(1, 1))
    return got("made it")


def read_secret(path: str, digest: str) -> bool:
    """Read the Secret that it was granted."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() == digest


def read_note(path: str) -> bool:
    """Read in a volume."""
    return bool(Path(path).read_text())


def write_note(path: str) -> bool:
    """Write in a volume."""
    Path(path).write_text("mine")
    return Path(path).read_text() == "mine"
