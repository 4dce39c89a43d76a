"""Ctrl-C that is heard at once, also in the moment before a read that waits for ever."""

from __future__ import annotations

import signal
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE: Final = 0.2
"""Seconds after which a signal that was not heard is sent again."""


@contextmanager
def prompt_interrupts() -> Iterator[None]:
    """Make sure that SIGINT becomes ``KeyboardInterrupt`` although the main thread waits in a system call.

    Python looks for signals between two steps. One that comes after the last look and before the system call
    is only seen when that returns, and a watch may say nothing for hours. So a thread is told of every
    signal too, and sends the main thread another until it has heard: that one interrupts the call.

    Does nothing outside the main thread, and where somebody else handles SIGINT.
    """
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    heard = threading.Event()

    def interrupt(*_: object) -> NoReturn:
        heard.set()
        raise KeyboardInterrupt

    told, tell = socket.socketpair()
    tell.setblocking(False)
    thread = threading.Thread(
        target=_repeat, args=(told, heard, threading.get_ident()), daemon=True, name="interrupts"
    )
    thread.start()
    before = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        heard.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(before)
        tell.close()
        thread.join()
        told.close()


def _repeat(told: socket.socket, heard: threading.Event, main: int) -> None:
    while signals := told.recv(16):
        while signal.SIGINT in signals and not heard.wait(_PATIENCE):
            signal.pthread_kill(main, signal.SIGINT)
