"""Takes alerts to an Alertmanager, or whatever speaks as one: ``POST /api/v2/alerts``.

There is no queue. Each delivery holds all that is wrong at that moment, so a receiver that was away hears
of what is so then, and an outage of hours costs nothing. Each alert says when it ends if nobody repeats it:
should the controller be gone for good, its alerts end by themselves, and no more is to remember.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import yaml

from crucible.core.alerts import RUNBOOK
from crucible.errors import InvalidInput, NotFound, Unavailable
from crucible.model.status import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from crucible.core.alerts import Alert

PATH: Final = "/api/v2/alerts"
LOOK: Final = 5.0
"""Seconds between two looks at what is wrong."""
REPEAT: Final = 60.0
"""Seconds after which what goes on is said again."""
ENDS: Final = 300.0
"""Seconds after which an alert that is not repeated is over."""
_RETRY_FIRST: Final = 1.0
_RETRY_LONGEST: Final = 60.0
_PATIENCE: Final = 10.0
_AT_ONCE: Final = 200
_MOST_CONFIG: Final = 1 << 16
_LATER: Final = frozenset({408, 425, 429})
_SERVER: Final = 500

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where alerts go.

    Attributes:
        url: of the receiver, without ``/api/v2/alerts``; may hold a name and a password.
        token: sent as a bearer token; empty: none.
        labels: put on every alert: which host, which cluster.
    """

    url: str
    token: str = ""
    labels: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        """Say where, and none of the secrets."""
        return f"Receiver({self.place})"

    @property
    def place(self) -> str:
        """The URL less all that may be secret: user, password, path and query."""
        parts = urlsplit(self.url)
        port = f":{parts.port}" if parts.port else ""
        return urlunsplit((parts.scheme, f"{parts.hostname}{port}", "", "", ""))


def receiver_of(text: str) -> Receiver:
    """Read a URL.

    Raises:
        InvalidInput: it is none of http or https. The message holds none of it.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InvalidInput("the receiver of alerts is no URL: write http://HOST:PORT or https://…") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise InvalidInput("the receiver of alerts has to be http://HOST:PORT or https://HOST")
    return Receiver(text.rstrip("/"))


def read_receiver(place: str, folder: Path) -> Receiver:
    """Read where alerts go: a URL itself, or a YAML file with ``url``, ``token`` and ``labels``.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it is wrong; says which field.
    """
    if "://" in place:
        return receiver_of(place)
    path = folder / place
    try:
        with path.open("rb") as file:
            found = yaml.safe_load(file.read(_MOST_CONFIG))
    except FileNotFoundError as error:
        raise NotFound(f"{path}: there is no such file: name one, or a URL") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is no YAML") from error
    known = {"url", "token", "labels"}
    if not isinstance(found, dict) or set(found) - known or not isinstance(found.get("url"), str):
        raise InvalidInput(
            f"{path}: write `url: https://…`, and if needed `token` and `labels`, nothing else"
        )
    labels = found.get("labels") or {}
    if not isinstance(labels, dict) or not all(
        isinstance(each, str) for pair in labels.items() for each in pair
    ):
        raise InvalidInput(f"{path}: labels: write names and values as text")
    token = found.get("token", "")
    if not isinstance(token, str) or any(char.isspace() for char in token):
        raise InvalidInput(f"{path}: token: write one word")
    plain = receiver_of(found["url"])
    return Receiver(plain.url, token, tuple(sorted(labels.items())))


def body_of(alert: Alert, receiver: Receiver, ends: float) -> dict[str, Any]:
    """Return an alert as Alertmanager takes it."""
    return {
        "labels": {**dict(receiver.labels), **dict(alert.labels)},
        "annotations": {
            "summary": f"{_subject(alert)}{alert.rule.summary}",
            "description": alert.message,
            "runbook": f"{RUNBOOK}#{alert.rule.name.lower()}",
        },
        "startsAt": format_time(min(alert.since, ends)),
        "endsAt": format_time(ends),
    }


def _subject(alert: Alert) -> str:
    return f"{alert.namespace}/{alert.plugin} " if alert.plugin else ""


class Courier:
    """Delivers what is wrong to one receiver. Use as an async context manager."""

    def __init__(
        self, receiver: Receiver, look: Callable[[], Sequence[Alert]], now: Callable[[], float]
    ) -> None:
        """Prepare; nothing is asked of the receiver yet.

        Args:
            receiver: where to.
            look: returns all that is wrong now.
            now: unix seconds.
        """
        self._receiver = receiver
        self._look = look
        self._now = now
        self._told: dict[tuple[tuple[str, str], ...], Alert] = {}
        self._said_at = float("-inf")
        self._failing = False
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"user-agent": "crucible"}
        if self._receiver.token:
            headers["authorization"] = f"Bearer {self._receiver.token}"
        self._session = aiohttp.ClientSession(
            headers=headers, timeout=aiohttp.ClientTimeout(total=_PATIENCE), trust_env=False
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def run(self) -> None:
        """Deliver until cancelled; what cannot be delivered now is tried again with a growing pause."""
        failures = 0
        while True:
            try:
                await self.turn()
                failures = 0
                self._turn(failing=False, why="")
            except Unavailable as error:
                failures += 1
                self._turn(failing=True, why=str(error))
            pause = min(_RETRY_FIRST * 2.0 ** min(failures - 1, 16), _RETRY_LONGEST) if failures else LOOK
            await asyncio.sleep(pause)

    async def turn(self) -> None:
        """Look once, and say what has changed or has not been said for a while.

        Raises:
            Unavailable: the receiver does not take it; nothing counts as said.
        """
        now = self._now()
        firing = {alert.labels: alert for alert in self._look()}
        over = [alert for labels, alert in self._told.items() if labels not in firing]
        due = not 0 <= now - self._said_at < REPEAT
        if not (over or firing.keys() - self._told.keys() or (due and firing)):
            return
        bodies = [body_of(alert, self._receiver, now + ENDS) for alert in firing.values()]
        bodies += [body_of(alert, self._receiver, now) for alert in over]
        for batch in _batches(bodies):
            await self._post(batch)
        self._told, self._said_at = firing, now

    async def _post(self, alerts: Sequence[dict[str, Any]]) -> None:
        if self._session is None:
            raise Unavailable("the courier is not open")
        try:
            # A redirect could lead a token, or the alerts, to someone else.
            async with self._session.post(
                self._receiver.url + PATH, json=alerts, allow_redirects=False
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # The words of the error may hold the URL, and the URL a password.
            raise Unavailable(f"{self._receiver.place} does not answer ({type(error).__name__})") from None
        if status >= _SERVER or status in _LATER:
            raise Unavailable(f"{self._receiver.place} answers {status}")
        if not 200 <= status < 300:  # noqa: PLR2004 - HTTP's own figures
            raise Unavailable(f"{self._receiver.place} refuses alerts with {status}: check its URL and token")

    def _turn(self, *, failing: bool, why: str) -> None:
        """Say once that delivery fails, and once that it works again."""
        if failing and not self._failing:
            _log.warning("alerts are not delivered, and tried again: %s", why)
        elif self._failing and not failing:
            _log.warning("alerts are delivered again to %s", self._receiver.place)
        self._failing = failing


def _batches(bodies: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    for first in range(0, len(bodies), _AT_ONCE):
        yield bodies[first : first + _AT_ONCE]
