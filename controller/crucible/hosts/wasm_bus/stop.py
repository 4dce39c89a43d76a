"""Being asked to stop, for a program that ends by itself."""

from __future__ import annotations

import math
import os
import select
import signal
import time


class Stop:
    """Whether SIGTERM has come. Until a program says that it listens, SIGTERM ends it at once.

    Attributes:
        asked: it has.
        descriptor: can be read when one came; below 0 while nobody listens.
    """

    def __init__(self) -> None:
        self.asked = False
        self.descriptor = -1

    def listen(self) -> None:
        """From now on SIGTERM is heard here, and ends nothing."""
        if self.descriptor < 0:
            self.descriptor, bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
            signal.signal(signal.SIGTERM, lambda *_: None)

    def wait(self, seconds: float | None, descriptor: int = -1) -> bool:
        """Wait until a descriptor can be read, SIGTERM comes or the time is over; say whether it can."""
        watched = select.poll()
        for one in (descriptor, self.descriptor):
            if one >= 0:
                watched.register(one, select.POLLIN)
        found = watched.poll(None if seconds is None else max(math.ceil(seconds * 1000), 0))
        ready = {one for one, _ in found}
        if self.descriptor in ready:
            self.asked = self.asked or signal.SIGTERM in os.read(self.descriptor, 4096)
        return descriptor in ready

    def pause(self, seconds: float) -> None:
        """Sleep; SIGTERM ends it."""
        if self.descriptor < 0:
            time.sleep(max(seconds, 0))
        else:
            self.wait(seconds)
