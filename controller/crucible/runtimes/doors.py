"""Door directories: where the sockets lie that an instance is shown, and how they get there.

A door's listening socket is made by the controller, before the plugin's first instruction, and handed to the
companion that serves it. Until that takes it, who connects waits in its queue; nothing is refused. A plugin
is shown the directory read-only, so it can open a door and never put another in its place.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from typing import TYPE_CHECKING, Final

from crucible.errors import Unsupported
from crucible.model.door import AUTHORITY, Door, socket_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FOLDER: Final = "doors"
"""Name of the door directory, in the directory that is kept for an instance."""
_QUEUE: Final = 128


def nobody() -> str:
    """Return no authority.

    Raises:
        Unsupported: nothing else is promised.
    """
    raise Unsupported("capabilities.bus.encryptLocal: there is no broker here that could speak TLS")


class Doors:
    """The doors of one instance, as the controller that opened them holds them.

    Attributes:
        names: what is behind them.
    """

    def __init__(self, directory: Path, names: Iterable[Door]) -> None:
        """Begin with every door shut.

        Args:
            directory: what is kept for the instance; the door directory is made in it.
            names: the doors it has.
        """
        self.names = tuple(names)
        self._directory = directory / FOLDER
        self._held: dict[Door, tuple[socket.socket, ...]] = {}
        self._authority = ""

    def seal(self, authority: str) -> None:
        """Have the door to the bus speak TLS, before it is opened; the instance is shown whom to believe."""
        self._authority = authority

    def speaks_tls(self, door: Door) -> bool:
        """Say whether a door was made to be spoken TLS through; a later controller finds that too."""
        return door is Door.BUS and (self._directory / AUTHORITY).is_file()

    @property
    def path(self) -> str:
        """The directory the instance is shown; empty where it has no doors."""
        return str(self._directory) if self.names else ""

    def open(self) -> None:
        """Make the directory and bind every door that is not held.

        Raises:
            OSError: it cannot be made.
        """
        if not self.names:
            return
        self._directory.mkdir(exist_ok=True)
        place = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(place, 0o755)  # whatever the controller's umask is: the plugin is another user
        finally:
            os.close(place)
        if self._authority:
            self._show_authority()
        for door in self.names:
            if door not in self._held:
                self._held[door] = (bind(self._directory, door),)

    def _show_authority(self) -> None:
        """Write down whom to believe, where the plugin can read it and write nothing."""
        with contextlib.suppress(FileExistsError):
            opened = os.open(
                self._directory / AUTHORITY, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            )
            with os.fdopen(opened, "w") as file:
                file.write(self._authority)
                os.fchmod(opened, 0o444)

    def add(self, door: Door, one: socket.socket) -> None:
        """Take in a listening socket that leads to an open door in another way."""
        self._held[door] += (one,)

    def holds(self, door: Door, family: socket.AddressFamily) -> bool:
        """Whether a door has a listening socket of a family."""
        return any(one.family == family for one in self._held.get(door, ()))

    def listeners(self, door: Door) -> tuple[socket.socket, ...]:
        """Return duplicates of a door's listening sockets; the caller closes them."""
        return tuple(one.dup() for one in self._held[door])

    def close(self) -> None:
        """Let go of the sockets. Whoever was handed them serves on."""
        for sockets in self._held.values():
            for one in sockets:
                one.close()
        self._held.clear()


def bind(directory: Path, door: Door) -> socket.socket:
    """Return a socket that listens in a directory under a door's name, instead of any that was there.

    The directory is resolved once, without following a link in its place, and everything below goes by its
    descriptor. Who is behind the socket is told by the directory, so anyone who sees it may connect.

    Raises:
        OSError: the directory is not one, or cannot be written.
    """
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    one = socket.socket(socket.AF_UNIX)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket_name(door), dir_fd=place)
        path = f"/proc/self/fd/{place}/{socket_name(door)}"
        one.bind(path)
        os.chmod(path, 0o666)  # noqa: PTH101, S103 - the way to it is what is closed
        one.listen(_QUEUE)
        one.setblocking(False)
    except BaseException:
        one.close()
        raise
    finally:
        os.close(place)
    return one


def discard(directory: Path) -> None:
    """Delete the door directory of an instance, where it has one."""
    folder = directory / FOLDER
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
