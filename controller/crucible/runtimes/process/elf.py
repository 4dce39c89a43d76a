"""Which shared libraries a program needs."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path
from typing import Final

_PT_INTERP: Final = 3
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
_LISTED: Final = re.compile(r"^\s*(?P<name>\S+)(?: => (?P<path>/\S+))? \(0x[0-9a-f]+\)$")
_SECONDS: Final = 20


def loader(path: Path) -> Path | None:
    """Return the dynamic loader a 64-bit program names; None for a static one or what is no program."""
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or header[:6] != b"\x7fELF\x02\x01":
            return None
        _, _, _, _, _, offset, _, _, _, size, count, *_ = _HEADER.unpack(header)
        file.seek(offset)
        table = file.read(size * count)
        for start in range(0, len(table), size):
            kind, _, where, _, _, length, *_ = _PROGRAM_HEADER.unpack_from(table, start)
            if kind == _PT_INTERP:
                file.seek(where)
                return Path(file.read(length).rstrip(b"\0").decode())
    return None


def libraries(path: Path, loaded_by: Path) -> tuple[Path, ...]:
    """Return the files a program or library loads, as this host's loader finds them.

    The loader only lists; nothing of the file runs. It is asked about the host's own interpreters alone.

    Raises:
        FileNotFoundError: one of them is not on this host.
    """
    done = subprocess.run(
        [str(loaded_by), "--list", str(path)],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
        env={},
    )
    missing = [line.split()[0] for line in done.stdout.splitlines() if line.endswith("=> not found")]
    if missing or done.returncode:
        raise FileNotFoundError(f"{path} needs {', '.join(missing) or done.stderr.strip()}")
    found = (_LISTED.match(line) for line in done.stdout.splitlines())
    return tuple(Path(match["path"]) for match in found if match and match["path"])
