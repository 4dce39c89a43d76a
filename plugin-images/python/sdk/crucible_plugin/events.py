"""Durable events: kept on the backbone until they were taken. The grants of messages count here too."""

from __future__ import annotations

from crucible_plugin.errors import DeadlineExceeded, Overloaded, Unavailable
from crucible_plugin.payloads import from_bytes, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    from crucible_plugin.wire import Frame

    class Exchange(Protocol):
        """How a method is called, and its ANSWER had as it came."""

        def __call__(
            self,
            name: str,
            payload: bytes,
            headers: dict[str, str] | None = None,
            *,
            timeout: float | None = None,
        ) -> Frame:
            """Call it."""
            ...


POLL = 5.0
"""Seconds of one take in ``follow``."""
PAUSE = 1.0
"""Seconds until it is tried again, when the backbone is not there."""


class Event:
    """What somebody put.

    Attributes:
        subject: to which.
        caller: the plugin that put it; ``PLUGIN@MACHINE`` where that is another machine's.
        payload: decoded; bytes where ``raw`` was asked for.
        headers: that came with it.
        sequence: its number, by which it is said to be done.
    """

    __slots__ = ("caller", "headers", "payload", "sequence", "subject")

    def __init__(self, frame: Frame, *, raw: bool) -> None:
        rest = dict(frame.headers)
        self.subject = rest.pop("subject")
        self.caller = rest.pop("from")
        self.sequence = rest.pop("sequence")
        self.headers = rest
        self.payload: Any = frame.payload if raw else from_bytes(frame.payload)


def words_of(pattern: str, subscription: str, done: Event | None) -> dict[str, str]:
    """Return the headers of a take."""
    words = {"pattern": pattern, "subscription": subscription}
    return words if done is None else {**words, "done": done.sequence}


class Events:
    """Puts and takes."""

    def __init__(self, exchange: Exchange, pause: Callable[[float], bool]) -> None:
        """Use a client's calls; ``pause`` waits, and says whether the plugin is to stop."""
        self._exchange = exchange
        self._pause = pause

    def put(self, subject: str, payload: object = None, *, ident: str = "") -> int:
        """Keep an event for whoever follows its subject; return its number once it is safe.

        An error means that it may not be: put it again. With an ``ident`` it is then kept once only.
        """
        headers = {"subject": subject, **({"id": ident} if ident else {})}
        return int(self._exchange("$events.put", to_bytes(payload), headers).headers["sequence"])

    def take(
        self,
        pattern: str,
        *,
        subscription: str = "main",
        done: Event | None = None,
        timeout: float | None = None,
        raw: bool = False,
    ) -> Event | None:
        """Return the oldest event that fits; None when there is none in ``timeout`` seconds, 30 unless given.

        It comes again after 30 s unless a later take names it as ``done``.
        """
        headers = words_of(pattern, subscription, done)
        try:
            return Event(self._exchange("$events.take", b"", headers, timeout=timeout), raw=raw)
        except DeadlineExceeded:
            return None

    def follow(self, pattern: str, *, subscription: str = "main", raw: bool = False) -> Iterator[Event]:
        """Yield events as they come, until the plugin stops; each is done when the next one is asked for."""
        done: Event | None = None
        while not self._pause(0):
            try:
                event = self.take(pattern, subscription=subscription, done=done, timeout=POLL, raw=raw)
            except (Unavailable, Overloaded):
                self._pause(PAUSE)
                continue
            done = event
            if event is not None:
                yield event
