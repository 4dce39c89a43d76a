"""Compiles a workload into the arguments of its sandbox. Pure: what is asked is all it knows.

The arguments come in two parts. The first is the command line proper, which anyone on the host can read: the
sandbox's shape and the program. The second travels through a pipe (``--args``): the root file system, the
environment and whatever else is the plugin's own. Without the second part the sandbox has an empty root, so a
start that was never confirmed can run nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crucible.core import doors
from crucible.core.guest import host_flags
from crucible.core.scratch import scratch_sizes
from crucible.core.secrets import FOLDER
from crucible.model.door import DOORS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crucible.model.workload import Workload
    from crucible.runtimes.secrets import Opened
    from crucible.runtimes.volumes import Shown

# Numbers of the descriptors that bubblewrap is given. 0 to 2 are the plugin's own.
ARGS_FD: Final = 3
STATUS_FD: Final = 4
SECCOMP_FD: Final = 5
CONFIG_FD: Final = 6
BLOCK_FD: Final = 7
VOLUMES_FD: Final = 280
"""The first of as many as there are volumes, for a sandbox of the controller's own user."""
SECRETS_FD: Final = 300
"""The first of as many as there are files of Secrets; so high that a low limit on open files is no matter."""

UID: Final = 1000
GID: Final = 1000
SOURCE: Final = "/plugin"
CONFIG: Final = "/config/config.json"
VOLUMES: Final = "/data"
_PAGE: Final = 4096
DEVICES: Final = ("null", "zero", "full", "random", "urandom")


@dataclass(frozen=True, slots=True)
class Program:
    """How a type's programs are run inside.

    Attributes:
        before: the interpreter and its flags; empty for a program that runs by itself.
        env: variables the interpreter needs.
    """

    before: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Places:
    """Where bubblewrap finds what it shows.

    Attributes:
        root: the root file system.
        source: the plugin's files.
        doors: its doors; empty: it has none.
        config: the folder of its configuration; empty: that does not change while it runs.
    """

    root: str
    source: str
    doors: str = ""
    config: str = ""


# Where they are shown to a sandbox of another user, which cannot walk to where they are.
# Covered for that process alone.
SHOWN: Final = Places("/tmp/root", "/tmp/source", "/tmp/doors", "/tmp/config")  # noqa: S108
LIBRARIES: Final = "/tmp/libraries"  # noqa: S108 - the same; bubblewrap's own shared libraries


def command_line(workload: Workload, program: Program, mark: str, *, held: bool) -> tuple[str, ...]:
    """Return the sandbox's own arguments and the command, after the name it shows.

    Args:
        workload: what to run.
        program: how its type runs.
        mark: the first argument, which says whose process this is.
        held: wait on ``BLOCK_FD`` before the program starts.
    """
    return (
        mark,
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
        *("--unshare-cgroup", "--disable-userns", "--uid", str(UID), "--gid", str(GID)),
        *("--cap-drop", "ALL", "--new-session", "--clearenv"),
        *("--json-status-fd", str(STATUS_FD), "--seccomp", str(SECCOMP_FD)),
        *(("--block-fd", str(BLOCK_FD)) if held else ()),
        *("--args", str(ARGS_FD), "--"),
        *program.before,
        *host_flags(workload),
        f"{SOURCE}/{workload.entrypoint[0]}",
        *workload.entrypoint[1:],
    )


def confirmation(
    workload: Workload, program: Program, instance: str, places: Places, opened: Opened
) -> tuple[str, ...]:
    """Return the arguments that go through the pipe: file systems, host name, environment."""
    scratch, shared = scratch_sizes(workload.limits)
    return (
        *("--ro-bind", places.root, "/"),
        *("--ro-bind", places.source, SOURCE),
        *(("--ro-bind", places.doors, DOORS) if workload.doors else ()),
        *("--proc", "/proc"),
        *(word for name in DEVICES for word in ("--dev-bind", f"/dev/{name}", f"/dev/{name}")),
        *("--perms", "1777", "--size", str(scratch), "--tmpfs", "/tmp"),  # noqa: S108 - inside the sandbox
        *("--perms", "1777", "--size", str(shared), "--tmpfs", "/dev/shm"),  # noqa: S108 - the same
        *_config(workload, places),
        *_secret_files(opened.files),
        *("--hostname", _host_name(instance), "--chdir", SOURCE),
        *(
            word
            for name, value in (*environment(workload, program, instance), *opened.variables)
            for word in ("--setenv", name, value)
        ),
    )


def _config(workload: Workload, places: Places) -> tuple[str, ...]:
    """Show a copy of the configuration, or the folder in which a new one takes the old one's place."""
    if workload.live_config:
        return ("--ro-bind", places.config, CONFIG.rpartition("/")[0])
    return ("--perms", "0444", "--ro-bind-data", str(CONFIG_FD), CONFIG)


def volume_place(index: int) -> str:
    """Return where a volume is shown to a sandbox of another user, as ``SHOWN`` is."""
    return f"/tmp/volume-{index}"  # noqa: S108 - covered for that process alone


def volume_words(shown: Sequence[Shown], *, own_uid: bool) -> tuple[str, ...]:
    """Return what shows volumes below ``/data``: by path to another user, by descriptor to our own."""
    if not shown:
        return ()
    words = ["--perms", "0755", "--size", str(_PAGE), "--tmpfs", VOLUMES]
    for index, each in enumerate(shown):
        verb = "--bind" if each.writable else "--ro-bind"
        source = (verb, volume_place(index)) if own_uid else (f"{verb}-fd", str(VOLUMES_FD + index))
        words += [*source, each.place]
    return (*words, "--remount-ro", VOLUMES)


def _secret_files(files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return what makes a file in memory of each descriptor, for the plugin's user alone."""
    if not files:
        return ()
    folders = dict.fromkeys(path.partition("/")[0] for path in files)
    size = sum(len(content) // _PAGE + 1 for content in files.values()) * _PAGE
    return (
        *("--perms", "0500", "--size", str(size), "--tmpfs", FOLDER),
        *(word for name in folders for word in ("--perms", "0500", "--dir", f"{FOLDER}/{name}")),
        *(
            word
            for number, path in enumerate(files, SECRETS_FD)
            for word in ("--perms", "0400", "--file", str(number), f"{FOLDER}/{path}")
        ),
        *("--remount-ro", FOLDER),
    )


def environment(workload: Workload, program: Program, instance: str) -> tuple[tuple[str, str], ...]:
    """Return every variable the plugin finds, but those from Secrets; the manifest's own prevail."""
    return (
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("HOME", "/tmp"),  # noqa: S108 - inside the sandbox
        ("LANG", "C.UTF-8"),
        *program.env,
        ("CRUCIBLE_PLUGIN", workload.plugin),
        ("CRUCIBLE_NAMESPACE", workload.namespace),
        ("CRUCIBLE_INSTANCE", instance),
        ("CRUCIBLE_CONFIG", CONFIG),
        ("CRUCIBLE_SOURCE", SOURCE),
        *doors.environment(workload, "127.0.0.1"),
        *workload.env,
    )


def encode(arguments: tuple[str, ...]) -> bytes:
    """Return arguments as ``--args`` reads them: each ended by a zero byte.

    Raises:
        ValueError: one holds a zero byte, and would be read as two.
    """
    if any("\0" in argument for argument in arguments):
        raise ValueError("a zero byte is in the environment or in an argument")
    return b"".join(argument.encode() + b"\0" for argument in arguments)


def _host_name(instance: str) -> str:
    """Return a host name made of an instance's name: 63 characters at most, the distinguishing end kept."""
    return instance.rpartition("/")[2][-63:].strip("-.") or "plugin"
