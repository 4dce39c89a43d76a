"""The contract between the core and a runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from socket import socket

    from crucible.model.door import Doorway
    from crucible.model.enforcement import Capabilities
    from crucible.model.instance import Instance
    from crucible.model.usage import Usage
    from crucible.model.workload import Slot, Workload

STDOUT: Final = 1
STDERR: Final = 2
NOT_EXECUTABLE: Final = 126
"""Exit code of a command that is there and cannot be executed, as shells have it."""
NOT_THERE: Final = 127
"""Exit code of a command that is not there."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of an instance's output.

    Attributes:
        at: when the runtime took it, unix seconds.
        text: the plugin's own bytes, without the line's end.
    """

    at: float
    text: bytes


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection to a port of an instance.

    Attributes:
        socket: connected, and set not to block; whoever lent it closes it.
        relayed: something in between accepted it: that the plugin did not shows in its end, soon after.
    """

    socket: socket
    relayed: bool = False


class ExecSession(Protocol):
    """A command that runs inside an instance beside its plugin."""

    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield chunks of output as they come, with ``STDOUT`` or ``STDERR``, until both end.

        With a terminal all is ``STDOUT``. Iterated once. What is not taken is not read: the command waits.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Send bytes to the command's stdin; returns once they are taken, or will never be."""
        ...

    async def close_stdin(self) -> None:
        """End the command's stdin."""
        ...

    async def resize(self, rows: int, columns: int) -> None:
        """Say how large the terminal is; without a terminal, nothing."""
        ...

    async def wait(self) -> int:
        """Return the exit code once the command has ended; 128 and the number for one that a signal ended."""
        ...

    async def close(self) -> None:
        """Kill the command if it still runs, with what it started where the runtime can tell; free all."""
        ...


class Runtime(Protocol):
    """Makes, watches and removes instances.

    The contract every runtime keeps, and one conformance suite checks:

    - Every verb is idempotent: asking twice is asking once, asking for what is already so is a success.
    - A plugin's own failure is never an exception: a program that cannot be executed, a sandbox the
      manifest makes impossible or a limit too small to start in become an ``EXITED`` instance whose
      ``exit.problem`` says why. ``Unavailable`` means that the runtime itself does not answer.
    - ``start`` writes down what it is about to make before it makes it. Whatever moment the controller
      dies, the next ``open`` finds the instance running, finds it ended, or finds nothing of it.
    - An ended instance stays listed, with its exit and its output, until ``remove``.
    - Nothing that bears another control plane's mark, or none, is ever touched.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this runtime holds a plugin to on this host; fixed once opened."""
        ...

    @property
    def outage(self) -> str:
        """Why this runtime does not answer now, and the fix; empty while it does.

        What :meth:`instances` returns meanwhile is what was known last.
        """
        ...

    async def open(self, changed: Callable[[str], None]) -> None:
        """Adopt what earlier controllers left and begin to watch.

        A runtime that lives elsewhere and does not answer is no error here: it is an ``outage``.

        Args:
            changed: called in the event loop with a plugin's uid whenever one of its instances came up,
                ended, or raised or lowered a notice, whoever caused it, and with the uid of every instance's
                plugin when an outage begins or ends.
        """
        ...

    async def close(self) -> None:
        """Stop watching. Instances go on running."""
        ...

    def instances(self, plugin_uid: str | None = None) -> tuple[Instance, ...]:
        """Return the instances of one plugin, or all of this control plane, oldest first."""
        ...

    async def start(self, workload: Workload, slot: Slot) -> Instance:
        """Start one instance, or return the one that already has this slot."""
        ...

    async def stop(self, plugin_uid: str, slot: Slot) -> None:
        """Ask an instance to end (SIGTERM to the plugin's main process) and note the time; do not wait."""
        ...

    async def kill(self, plugin_uid: str, slot: Slot) -> None:
        """End an instance and every process below it, now."""
        ...

    async def remove(self, plugin_uid: str, slot: Slot) -> None:
        """Forget an ended instance and delete all that was made for it; kill it first if it is alive."""
        ...

    async def deliver(self, plugin_uid: str, slot: Slot, config: str, *, signal: bool) -> None:
        """Hand an instance that runs a new configuration.

        The file that ``CRUCIBLE_CONFIG`` names is the old one or the new one, whole, at any moment. Done is
        what ``Instance.config`` says; a controller that dies before does it again. Only for instances whose
        workload said so (``live_config``); one that has ended is left alone.

        Args:
            plugin_uid: the Plugin.
            slot: the instance.
            config: the whole configuration, as JSON text.
            signal: send SIGHUP to the plugin's main process once the file is there.

        Raises:
            Unavailable: it cannot be done now.
        """
        ...

    async def freeze(self, plugin_uid: str, slot: Slot) -> None:
        """Hold every process of an instance still, and return once they are; one that ended is left alone.

        ``stop``, ``kill`` and ``remove`` end one that is held still as any other. No command is run in it.

        Raises:
            Unsupported: this runtime cannot on this host: ``Capabilities.no_freezer`` says so before.
            Unavailable: not now.
        """
        ...

    async def thaw(self, plugin_uid: str, slot: Slot) -> None:
        """Let an instance that is held still go on.

        Raises:
            Unavailable: not now.
        """
        ...

    async def route(self, plugin_uid: str, slots: Sequence[Slot]) -> None:
        """Have new connections from outside to a plugin's ports go to these instances alone.

        Connections that are open stay where they are. Done is what ``Instance.reached`` says, also after a
        controller's restart. An instance that is started later is not reached until it is among them. Where
        none of them takes a connection any more, others are tried: nobody is turned away for that.

        Args:
            plugin_uid: the Plugin.
            slots: its instances; none: all there are, and will be.

        Raises:
            Unavailable: it cannot be done now.
        """
        ...

    async def sweep(self) -> tuple[str, ...]:
        """Adopt what is on record and was missed; end and delete what bears our mark and is on no record.

        Returns what was ended or deleted, in words. What runs and is known is not touched.

        Raises:
            Unavailable: the runtime does not answer.
        """
        ...

    def logs(self, plugin_uid: str, slot: Slot, *, tail: int | None, follow: bool) -> AsyncIterator[LogLine]:
        """Yield an instance's output, oldest first.

        Args:
            plugin_uid: the Plugin.
            slot: the instance.
            tail: only this many last lines; None for all that is kept.
            follow: go on until the instance is removed or has ended and all is said.

        Raises:
            NotFound: no such instance.
        """
        ...

    async def exec(
        self, plugin_uid: str, slot: Slot, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecSession:
        """Run a command inside a running instance, held to all that its plugin is held to.

        It shares the plugin's file systems, limits, user, environment and working directory, is no more
        powerful in any way, and ends with the instance. A command that cannot be executed is no exception:
        it says why on stderr, and its exit code is ``NOT_THERE`` or ``NOT_EXECUTABLE``.

        Args:
            plugin_uid: the Plugin.
            slot: the instance.
            command: the program, looked for on the instance's ``PATH``, and its arguments.
            stdin: it will be written to; otherwise it finds its input ended.
            tty: give it a terminal.

        Raises:
            NotFound: no such instance.
            Conflict: the instance has ended, or its plugin does not run yet.
            Unsupported: this runtime cannot on this host; says why.
        """
        ...

    def doorways(self, plugin_uid: str | None = None) -> tuple[Doorway, ...]:
        """Return the doors of one plugin's instances that may run, or of all."""
        ...

    async def listeners(self, doorway: Doorway) -> tuple[socket, ...]:
        """Return the listening sockets of a door, duplicates that the caller closes; none where it is gone.

        They are those the instance was started with, for as long as this controller lives, so whoever waits
        in their queues is not lost. After a controller's restart the door is bound anew, which leaves the
        sockets of before without a way to them: ask only for a door that nobody serves.

        Raises:
            Unavailable: the door cannot be bound now.
        """
        ...

    def connect(self, plugin_uid: str, slot: Slot, port: int) -> AbstractAsyncContextManager[Connected]:
        """Connect to a TCP port on an instance's own loopback address, for as long as the context lasts.

        Args:
            plugin_uid: the Plugin.
            slot: the instance.
            port: any; it need not be one that others may connect to, unless the runtime says so.

        Raises:
            NotFound: no such instance.
            Conflict: it does not run.
            OSError: nobody listens there.
            Unsupported: this runtime cannot on this host; says why, and the fix.
            Unavailable: the runtime does not answer.
        """
        ...

    async def usage(self, plugin_uid: str, slot: Slot) -> Usage | None:
        """Return what an instance uses, all its processes together; None where the host cannot say.

        None too for an instance that has ended, or that there is not.
        """
        ...
