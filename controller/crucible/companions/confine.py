"""How a companion gives up, before it hears a stranger's first byte, all that it does not need."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from pathlib import Path
from typing import Final

from crucible.core import bpf
from crucible.core.seccomp import PROFILE

READABLE: Final = (
    "/etc",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/usr/lib",
    "/lib",
    "/lib64",
    "/usr/share/zoneinfo",
)
"""What a companion may read, and only read: how names are resolved, and the libraries that do it."""
_FILES: Final = 65536
_CORE: Final = 1  # not 0: a crash handler that the host set up is called all the same with 0
_LOG_BYTES: Final = 1 << 20
_DATA_BYTES: Final = 1 << 36

_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_SECCOMP_MODE_FILTER: Final = 2
_BPF_INSTRUCTION: Final = 8

# The same numbers on every machine that we run on.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_FILE = 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 8
_TRUNCATE: Final = 1 << 14
_RIGHTS_BY_VERSION: Final = ((1, 0x1FFF), (2, 1 << 13), (3, 1 << 14), (5, 1 << 15))
_BIND_TCP: Final = 1
_SCOPES: Final = 0b11  # abstract Unix sockets and signals: none beyond the companions' own

_libc = ctypes.CDLL(None, use_errno=True)


def confine(uid: int | None, memory: int, data: int | None = None) -> None:
    """Become harmless: another user, no privileges, few system calls, no files but those named above.

    Whatever a companion imports has to be imported before.

    Args:
        uid: user and group to become; None to stay who this is.
        memory: bytes of data it may have.
        data: descriptor of the one folder in which it may make, change and delete files; None: there is none.

    Raises:
        OSError: something of it cannot be had here; Landlock is the one thing that may be missing.
    """
    limit(files=_FILES, written=_LOG_BYTES if data is None else _DATA_BYTES, memory=memory)
    if uid is not None:
        become_user(uid)
    renounce()
    _prctl(_PR_SET_DUMPABLE, 0)
    _close_file_system(data)
    filter_calls(bpf.encode(bpf.program(PROFILE, platform.machine())))


def become_user(uid: int) -> None:
    """Become a user, and a group of the same number, for good."""
    _drop_bounds()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def renounce() -> None:
    """Gain no privileges any more, whatever is run."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def landlock_version() -> int:
    """Return which Landlock this kernel has; 0 for none."""
    return max(int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)), 0)


def limit(*, files: int, written: int, memory: int | None = None) -> None:
    """Lower what this process may use: open files, bytes of a file that it writes, bytes of data."""
    for which, most in (
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_CORE, _CORE),
        (resource.RLIMIT_FSIZE, written),
        *([] if memory is None else [(resource.RLIMIT_DATA, memory)]),
    ):
        _, hard = resource.getrlimit(which)
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (value, value))


def _drop_bounds() -> None:
    capability = 0
    while _libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:
        _prctl(_PR_CAPBSET_DROP, capability)
        capability += 1


def _close_file_system(data: int | None) -> None:
    """Leave some folders to read, one at most to write, no port to bind and nobody to signal."""
    version = landlock_version()
    if version == 0:
        return
    rights = rights_of(version)
    words = [rights, *([_BIND_TCP] if version >= 4 else []), *([_SCOPES] if version >= 6 else [])]  # noqa: PLR2004 - the version that brought it
    ruleset = ruleset_of(words)
    try:
        for place in READABLE:
            if Path(place).exists():
                _allow_reading(ruleset, place)
        if data is not None:
            _allow(ruleset, data, rights & (_WRITE_FILE | _REMOVE_FILE | _MAKE_FILE | _TRUNCATE), "the data")
        restrict(ruleset)
    finally:
        os.close(ruleset)


def rights_of(version: int) -> int:
    """Return all that a version of Landlock can take away of files."""
    return sum(right for since, right in _RIGHTS_BY_VERSION if version >= since)


def ruleset_of(words: list[int]) -> int:
    """Return the descriptor of rules that take away all that is named here: of files, the network, others."""
    attributes = struct.pack(f"{len(words)}Q", *words)
    ruleset = int(_libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    if ruleset < 0:
        _fail("cannot make a Landlock ruleset")
    return ruleset


def add_rule(ruleset: int, kind: int, rule: bytes, what: str = "a rule") -> None:
    """Leave something."""
    if _libc.syscall(_ADD_RULE, ruleset, kind, rule, 0) != 0:
        _fail(f"cannot leave {what} within reach")


def restrict(ruleset: int) -> None:
    """Be held to rules from now on, with whatever is run."""
    if _libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
        _fail("cannot take on a Landlock ruleset")


def _allow_reading(ruleset: int, place: str) -> None:
    opened = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        _allow(ruleset, opened, 0, place)
    finally:
        os.close(opened)


def _allow(ruleset: int, folder: int, more: int, what: str) -> None:
    add_rule(ruleset, _PATH_BENEATH, struct.pack("=Qi", _READ_FILE | _READ_DIR | more, folder), what)


def filter_calls(program: bytes) -> None:
    """Be held to a list of system calls from now on, with whatever is run."""
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a length, and a pointer aligned as pointers are.
    header = ctypes.create_string_buffer(
        struct.pack("@HP", len(program) // _BPF_INSTRUCTION, ctypes.addressof(instructions))
    )
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(header))


def _prctl(option: int, first: int, second: int = 0) -> None:
    arguments = [ctypes.c_ulong(value) for value in (first, second, 0, 0)]
    if _libc.prctl(option, *arguments) != 0:
        _fail(f"prctl {option}")


def _fail(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")
