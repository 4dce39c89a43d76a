"""Runs a command inside a running sandbox, by the program in ``entrance.py``."""

from __future__ import annotations

import errno
import json
import os
import socket
import sysconfig
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.errors import Conflict, CrucibleError, NotFound, Unavailable, Unsupported
from crucible.runtimes.process import argv, surroundings
from crucible.runtimes.process.cgroups.base import joins
from crucible.runtimes.process.host import open_program
from crucible.runtimes.process.session import Session, open_streams
from crucible.runtimes.process.spawn import Launch, Spawned, read_to_end
from crucible.runtimes.secrets import variables_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crucible.model.secret import SecretVariable
    from crucible.runtimes.process.live import Live
    from crucible.runtimes.process.session import Given
    from crucible.runtimes.process.spawn import Spawner
    from crucible.runtimes.secrets import SecretsOf

_ENTRANCE: Final = Path(__file__).with_name("entrance.py")


@dataclass(frozen=True, slots=True)
class Means:
    """What the runtime runs commands with: its spawner, its filter, and who reads Secrets."""

    spawner: Spawner
    seccomp: Path
    secrets_of: SecretsOf


async def run(means: Means, live: Live, command: Sequence[str], *, stdin: bool, tty: bool) -> Session:
    """Start a command in an instance.

    Raises:
        Conflict: the instance has ended, its plugin does not run yet, or a Secret of its environment is gone.
        Unavailable: it has no room for another process.
        Unsupported: the kernel does not let this controller in, or an earlier release started the instance.
    """
    name = live.record.name
    plugin = live.hold_plugin()
    if plugin is None:
        raise Conflict(f"{name} {'has ended' if live.ended.is_set() else 'does not run yet'}")
    with ExitStack() as stack:
        stack.callback(os.close, plugin)
        request = _request(live, means, command, tty=tty)
        ours, theirs = socket.socketpair()
        stack.enter_context(theirs)
        ours.setblocking(False)
        streams, given = open_streams(live.record.uid, stdin=stdin, tty=tty)
        stack.callback(_close, given)
        session = Session(ours, streams)
        try:
            await _open_entrance(means.spawner, (*given, theirs.fileno(), plugin))
            theirs.close()  # the entrance has it now, and its end is to be heard
            answer = await session.begin(request)
        except BaseException:
            theirs.close()
            await session.close()
            raise
    if "problem" in answer:
        await session.close()
        raise _refusal(live, answer["problem"], answer["errno"])
    return session


def _request(live: Live, means: Means, command: Sequence[str], *, tty: bool) -> bytes:
    """Return what the entrance is asked."""
    found = surroundings.load(live.directory)
    if found is None:
        raise Unsupported(f"{live.record.name} was started by an earlier release: restart it first")
    request = {
        "command": list(command),
        "environment": {
            **dict(found.environment),
            **_secret_variables(live, found.secrets, means.secrets_of),
        },
        "directory": argv.SOURCE,
        "tty": tty,
        "uid": live.record.uid,
        "supplementary": found.groups,
        "groups": [str(path) for path in joins(live.cgroups)],
        "filter": str(means.seccomp),
        "rlimits": found.rlimits,
    }
    return json.dumps(request).encode() + b"\n"


def _secret_variables(live: Live, wanted: Sequence[SecretVariable], secrets_of: SecretsOf) -> dict[str, str]:
    """Return variables from Secrets, as those are now: their values were not written down."""
    try:
        secrets = {each.secret: secrets_of(live.record.namespace, each.secret) for each in wanted}
        return dict(variables_of(wanted, secrets))
    except (NotFound, ValueError) as error:
        raise Conflict(f"{live.record.name}: its environment cannot be had again: {error}") from error


async def _open_entrance(spawner: Spawner, descriptors: tuple[int, ...]) -> None:
    """Start the entrance, by the interpreter that runs this.

    Inside, a program can reach the entrance's own file by ``/proc/self/exe`` for as long as the command has
    not replaced it; see ``open_program`` for why that cannot be written to.
    """
    interpreter, environment = _interpreter()
    program = open_program(interpreter)
    try:
        spawned, told = await spawner.launch(
            Launch(
                argv=(str(interpreter), "-I", "-S", str(_ENTRANCE)),
                program=program,
                descriptors=descriptors,
                uid=None,
                groups=(),
                rlimits=(),
                env=environment,
            )
        )
    finally:
        os.close(program)
    problem = await read_to_end(told)
    if isinstance(spawned, Spawned):
        os.close(spawned.pidfd)
    else:
        problem = problem or spawned
    if problem:
        raise Unavailable(f"cannot start the program that enters sandboxes: {problem}")


def _interpreter() -> tuple[Path, dict[str, str]]:
    """Return the interpreter that runs this, and what a copy of it elsewhere needs to find its libraries."""
    shared = sysconfig.get_config_var("Py_ENABLE_SHARED")
    libraries = sysconfig.get_config_var("LIBDIR") if shared else None
    return Path("/proc/self/exe").resolve(), {"LD_LIBRARY_PATH": libraries} if libraries else {}


def _refusal(live: Live, problem: str, number: int) -> CrucibleError:
    """Say what kind of refusal a problem on the way in is."""
    words = f"cannot enter {live.record.name}: {problem}"
    plugin = live.hold_plugin()
    if plugin is None:
        return Conflict(f"{live.record.name} has ended")
    os.close(plugin)
    if number in {errno.EAGAIN, errno.ENOMEM}:
        return Unavailable(f"{words}; it may be at its limit of processes")
    return Unsupported(words) if number else Unavailable(words)


def _close(given: Given) -> None:
    for descriptor in set(given):
        os.close(descriptor)
