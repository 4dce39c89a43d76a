"""Pulls images, each once however many plugins want it, and says how far it is."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import requests
from docker import errors

from crucible.errors import CrucibleError, InvalidSource, Unavailable, Underway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from crucible.runtimes.docker.engine import Engine

STALE: Final = 45.0
"""Seconds without a word of progress after which a registry counts as hanging."""
MOST: Final = 16
"""Pulls at once."""
_SAY_EVERY: Final = 1.0
_RETRY_FIRST: Final = 10.0
_RETRY_LONGEST: Final = 300.0

_ABSENT: Final = ("manifest unknown", "not found", "does not exist", "name unknown", "no such image")
_DENIED: Final = ("denied", "unauthorized", "authentication required", "no basic auth")
_ALTERED: Final = ("verification failed", "digest", "unexpected commit")


@dataclass(slots=True)
class Pull:
    """One pull under way.

    Attributes:
        waiting: the plugins to ring.
        layers: bytes had and bytes in all, by layer.
        heard: when the registry was last heard of, on the monotonic clock.
        said: when the plugins were last rung, the same.
    """

    heard: float
    said: float
    waiting: set[str] = field(default_factory=set)
    layers: dict[str, tuple[int, int]] = field(default_factory=dict)

    def hear(self, message: Mapping[str, Any], now: float) -> None:
        """Take one message of the engine."""
        self.heard = now
        layer, detail = message.get("id"), message.get("progressDetail") or {}
        if layer and message.get("status") == "Downloading" and detail.get("total"):
            self.layers[layer] = (int(detail.get("current", 0)), int(detail["total"]))
        elif layer in self.layers and message.get("status") in {"Download complete", "Pull complete"}:
            self.layers[layer] = (self.layers[layer][1],) * 2

    @property
    def progress(self) -> str:
        """How far it is, in words; empty while nobody knows."""
        total = sum(whole for _, whole in self.layers.values())
        done = sum(had for had, _ in self.layers.values())
        return f": {100 * done // total} % of {total / 2**20:.1f} MiB" if total else ""


@dataclass(frozen=True, slots=True)
class Failure:
    """A pull that failed, and when to try again, on the monotonic clock."""

    error: CrucibleError
    count: int
    again_at: float


class Pulls:
    """Every pull of one engine."""

    def __init__(self, engine: Engine, ring: Callable[[str], None]) -> None:
        self._engine = engine
        self._ring = ring
        self._running: dict[str, Pull] = {}
        self._failed: dict[str, Failure] = {}
        self._done: set[str] = set()

    def ask(self, reference: str, plugin_uid: str) -> None:
        """Return once an image was pulled since it was last asked for; begin to pull it if nobody did.

        Raises:
            Underway: it is being pulled; the plugin is rung when there is more to say.
            InvalidSource: it cannot be had as it is named.
            Unavailable: its registry does not answer.
        """
        now = time.monotonic()
        if reference in self._done:
            self._done.discard(reference)
            return
        pull = self._running.get(reference)
        if pull is None:
            failure = self._failed.get(reference)
            if failure is not None and now < failure.again_at:
                raise failure.error
            pull = self._begin(reference, now)
        pull.waiting.add(plugin_uid)
        if now - pull.heard >= STALE:
            raise Unavailable(
                f"the registry of {reference} hangs: nothing came for {STALE:g} s; the pull goes on, "
                "but look whether the registry can be reached from the engine"
            )
        raise Underway(f"pulling {reference}{pull.progress}")

    def _begin(self, reference: str, now: float) -> Pull:
        if len(self._running) >= MOST:
            raise Underway(f"pulling {reference}: waits for {MOST} other pulls")
        pull = self._running[reference] = Pull(heard=now, said=now)
        loop = asyncio.get_running_loop()
        loop.call_later(STALE, self._tell, pull)
        thread = threading.Thread(
            target=self._work, args=(reference, pull, loop), name="docker-pull", daemon=True
        )
        thread.start()
        return pull

    def _work(self, reference: str, pull: Pull, loop: asyncio.AbstractEventLoop) -> None:
        """Pull, in a thread of its own: a registry that hangs holds up nobody else."""
        error: CrucibleError | None = None
        try:
            client = self._engine.another()
            for message in client.pull(reference, stream=True, decode=True):
                if "error" in message:
                    error = failure_of(reference, str(message["error"]))
                loop.call_soon_threadsafe(self._hear, pull, message)
        except (errors.DockerException, requests.RequestException, OSError) as problem:
            error = failure_of(reference, str(getattr(problem, "explanation", None) or problem))
        except CrucibleError as problem:
            error = problem
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._finish, reference, pull, error)

    def _hear(self, pull: Pull, message: Mapping[str, Any]) -> None:
        now = time.monotonic()
        pull.hear(message, now)
        if now - pull.said >= _SAY_EVERY:
            self._tell(pull)

    def _finish(self, reference: str, pull: Pull, error: CrucibleError | None) -> None:
        self._running.pop(reference, None)
        if error is None:
            self._failed.pop(reference, None)
            self._done.add(reference)
        else:
            before = self._failed.get(reference)
            count = before.count + 1 if before else 1
            pause = min(_RETRY_FIRST * 2.0 ** (count - 1), _RETRY_LONGEST)
            self._failed[reference] = Failure(error, count, time.monotonic() + pause)
            asyncio.get_running_loop().call_later(pause, self._ring_all, frozenset(pull.waiting))
        self._tell(pull)

    def _tell(self, pull: Pull) -> None:
        pull.said = time.monotonic()
        self._ring_all(pull.waiting)

    def _ring_all(self, plugins: Iterable[str]) -> None:
        for plugin_uid in tuple(plugins):
            self._ring(plugin_uid)


def failure_of(reference: str, text: str) -> CrucibleError:
    """Return what a failed pull means, with the fix."""
    lower = text.lower()
    if "no space left" in lower:
        return Unavailable(
            f"the disk of the Docker engine is full: free some, then {reference} is pulled again"
        )
    if any(word in lower for word in _DENIED):
        return InvalidSource(
            f"image {reference} cannot be pulled: it does not exist, or needs credentials: check the name, "
            "and `docker login` to its registry as the user who runs the controller"
        )
    if any(word in lower for word in _ABSENT) and "host" not in lower:
        return InvalidSource(f"image {reference} does not exist in its registry: check name and tag ({text})")
    if any(word in lower for word in _ALTERED):
        return InvalidSource(
            f"image {reference} is not what its digest names: the registry serves something else ({text})"
        )
    return Unavailable(f"the registry of {reference} does not answer: {text}")
