"""Things laid out on the host for a hostile plugin to find."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS: Final = "the host's own words"


@dataclass(slots=True)
class Bait:
    """Things on the host that a plugin must not reach, and whoever came for them.

    Attributes:
        file: readable by everyone on the host.
        port: on the host's loopback, IPv4 and IPv6 where there is one.
        socket: path of a Unix socket; the abstract one has the same name.
        visitors: what was connected to.
    """

    file: Path
    port: int
    socket: str
    visitors: list[str] = field(default_factory=list)


@contextmanager
def bait(folder: Path) -> Iterator[Bait]:
    """Lay out bait, and make sure that the host itself can take it: a denial means nothing otherwise."""
    file = folder / "secret.txt"
    file.write_text(WORDS)
    file.chmod(0o644)
    folder.chmod(0o755)
    path = str(folder / "host.sock")
    with ExitStack() as stack:
        four = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = four.getsockname()[1]
        laid = Bait(file, port, path)
        listeners = {f"127.0.0.1:{port}": four}
        if socket.has_ipv6:
            with suppress(OSError):  # a host without an IPv6 loopback has nothing to be reached there
                listeners[f"[::1]:{port}"] = stack.enter_context(
                    socket.create_server(("::1", port), family=socket.AF_INET6)
                )
        for name, address in ((path, path), (f"@{path}", f"\0{path}")):
            made = stack.enter_context(socket.socket(socket.AF_UNIX))
            made.bind(address)
            made.listen()
            listeners[name] = made
        Path(path).chmod(0o777)
        for name, listener in listeners.items():
            threading.Thread(target=_note_visitors, args=(listener, name, laid), daemon=True).start()
        _take(laid)
        yield laid


def _note_visitors(listener: socket.socket, name: str, laid: Bait) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, suppress(OSError):  # a visitor may be gone before it is answered
            laid.visitors.append(name)
            connection.sendall(b".")


def _take(laid: Bait) -> None:
    """Reach everything from the host, once."""
    with socket.create_connection(("127.0.0.1", laid.port), timeout=5) as made:
        made.recv(1)
    for address in (laid.socket, f"\0{laid.socket}"):
        with socket.socket(socket.AF_UNIX) as made:
            made.settimeout(5)
            made.connect(address)
            made.recv(1)
    if len(laid.visitors) != 3 or laid.file.read_text() != WORDS:  # noqa: PLR2004 - the three above
        raise Unavailable("the bait cannot be reached from the host itself, so a denial would mean nothing")
    laid.visitors.clear()
