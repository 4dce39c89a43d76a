"""How a program that is not ours gives up, before its first instruction, all but one folder of its own."""

from __future__ import annotations

import os
import platform
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.companions import confine
from crucible.core import bpf
from crucible.core.seccomp import PROFILE

if TYPE_CHECKING:
    from collections.abc import Mapping

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_FILE = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_WHOLE_FOLDER: Final = (
    _WRITE_FILE
    | _READ_FILE
    | _READ_DIR
    | _REMOVE_DIR
    | _REMOVE_FILE
    | _MAKE_DIR
    | _MAKE_FILE
    | _REFER
    | _TRUNCATE
)
_PATH_BENEATH, _PORT, _BIND_TCP, _CONNECT_TCP = 1, 2, 1, 2
_NETWORK_SINCE: Final = 4
_SCOPES_SINCE: Final = 6
_SCOPES: Final = 0b11
_FILES: Final = 65536
_WRITTEN: Final = 1 << 36


def become(  # noqa: PLR0913, PLR0917 - each is one thing that is left
    uid: int | None,
    folder: int,
    program: int,
    port: int,
    arguments: list[str],
    environment: Mapping[str, str],
) -> None:
    """Become a program, in a folder of its own; does not return.

    It is a user of its own where this is root, has no privileges and few system calls, reaches no file but
    what is in its folder, listens at one port and connects to none. Where there is no Landlock, the last
    three are not held.

    Args:
        uid: user and group to become; None to stay who this is.
        folder: descriptor of the folder.
        program: descriptor of the program's file.
        port: at which it may listen.
        arguments: of the program, its name first.
        environment: its variables.

    Raises:
        OSError: something of it cannot be had here.
    """
    confine.limit(files=_FILES, written=_WRITTEN)
    if uid is not None:
        confine.become_user(uid)
    os.fchdir(folder)
    confine.renounce()
    _close_file_system(folder, program, port)
    confine.filter_calls(bpf.encode(bpf.program(PROFILE, platform.machine())))
    os.execve(program, arguments, environment)  # noqa: S606 - no shell


def _close_file_system(folder: int, program: int, port: int) -> None:
    version = confine.landlock_version()
    if version == 0:
        return
    network = version >= _NETWORK_SINCE
    rights = confine.rights_of(version)
    words = [rights]
    if network:
        words.append(_BIND_TCP | _CONNECT_TCP)
    if version >= _SCOPES_SINCE:
        words.append(_SCOPES)
    ruleset = confine.ruleset_of(words)
    try:
        confine.add_rule(ruleset, _PATH_BENEATH, struct.pack("=Qi", rights & _WHOLE_FOLDER, folder))
        confine.add_rule(ruleset, _PATH_BENEATH, struct.pack("=Qi", _EXECUTE | _READ_FILE, program))
        for place in confine.READABLE:
            if Path(place).exists():
                opened = os.open(place, os.O_PATH | os.O_CLOEXEC)
                reading = _READ_FILE | (_READ_DIR if Path(place).is_dir() else 0)
                confine.add_rule(ruleset, _PATH_BENEATH, struct.pack("=Qi", reading, opened))
                os.close(opened)
        if network:
            confine.add_rule(ruleset, _PORT, struct.pack("=QQ", _BIND_TCP, port))
        confine.restrict(ruleset)
    finally:
        os.close(ruleset)
