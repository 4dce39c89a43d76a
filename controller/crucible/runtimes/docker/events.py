"""The engine's event stream, in a thread of its own: what happens to our containers, as it happens."""

from __future__ import annotations

import contextlib
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import requests
from docker import errors

from crucible.runtimes.docker.engine import shut
from crucible.runtimes.docker.labels import CONTROL_PLANE, ROLE

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    import docker

_TORN: Final = (errors.DockerException, requests.RequestException, OSError, ValueError, AttributeError)
KINDS: Final = ("die", "oom", "destroy", "start")
CODE: Final = "exitCode"
"""Of an event's attributes, over which engines put a container's labels, those of its image among them."""
_CODE: Final = re.compile("-?[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class Happened:
    """One event.

    Attributes:
        kind: ``die``, ``oom``, ``destroy`` or ``start``.
        container: the engine's id.
        at: unix seconds.
        code: exit status, of ``die``.
        role: what the container is to us, by its label.
    """

    kind: str
    container: str
    at: float
    code: int = 0
    role: str = ""


def read_event(event: Mapping[str, Any]) -> Happened:
    """Translate one event of the engine."""
    actor = event.get("Actor", {})
    attributes = actor.get("Attributes", {})
    code = str(attributes.get(CODE, ""))
    return Happened(
        kind=event.get("Action", ""),
        container=actor.get("ID", ""),
        at=event.get("timeNano", 0) / 1e9,
        code=int(code) if _CODE.fullmatch(code) else 0,
        role=attributes.get(ROLE, ""),
    )


class Events:
    """One subscription, until the stream breaks or is closed."""

    def __init__(
        self,
        client: docker.APIClient,
        control_plane: str,
        happened: Callable[[Happened], None],
        broke: Callable[[], None],
    ) -> None:
        """Subscribe; blocks until the engine has answered.

        Args:
            client: of its own.
            control_plane: whose containers.
            happened: called in the event loop, in the order of the engine.
            broke: called there once the stream ended, unless :meth:`close` did that.
        """
        self._client = client
        self._happened = happened
        self._broke = broke
        self._closed = False
        self._stream = client.events(
            decode=True,
            filters={
                "type": "container",
                "event": list(KINDS),
                "label": f"{CONTROL_PLANE}={control_plane}",
            },
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._read, name="docker-events", daemon=True)

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to read."""
        self._loop = loop
        self._thread.start()

    def close(self) -> None:
        """Stop; nothing is called any more."""
        self._closed = True
        with contextlib.suppress(errors.DockerException, OSError, AttributeError):
            self._stream.close()  # wakes the thread, which closes the rest

    def _read(self) -> None:
        # However a stream ends, torn by the engine or closed under its reader, what follows is the same.
        with contextlib.suppress(*_TORN):
            for event in self._stream:
                self._call(self._happened, read_event(event))
        shut(self._stream)
        self._client.close()
        self._call(self._broke)

    def _call(self, function: Callable[..., None], *arguments: Happened) -> None:
        if not self._closed and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)
