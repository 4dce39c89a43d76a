"""Pulls images, each once however many plugins want it, and says how far it is."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import requests
from docker import errors

from crucible.errors import CrucibleError, InvalidSource, Unavailable, Underway
from crucible.runtimes.docker.client import credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from crucible.runtimes.docker.engine import Engine
    from crucible.runtimes.docker.settings import DockerSettings

MOST: Final = 16
"""Pulls at once."""
_FRESH: Final = 60.0
"""Seconds in which a plugin that waited for a pull may take its image without another one."""
_SAY_EVERY: Final = 1.0
_RETRY_LONGEST: Final = 300.0

_ABSENT: Final = ("manifest unknown", "not found", "does not exist", "name unknown", "no such image")
_OTHER_HOST: Final = ("no such host", "connection refused", "i/o timeout", "network is unreachable")
_OTHER_MACHINE: Final = "no matching manifest"
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
        broke: the registry broke off, and the engine waits before it tries again.
    """

    heard: float
    said: float
    waiting: set[str] = field(default_factory=set)
    layers: dict[str, tuple[int, int]] = field(default_factory=dict)
    broke: bool = False

    def hear(self, message: Mapping[str, Any], now: float) -> None:
        """Take one message of the engine."""
        self.heard = now
        self.broke = str(message.get("status", "")).startswith("Retrying")
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
        known = f": {100 * done // total} % of {total / 2**20:.1f} MiB" if total else ""
        return f"{known}; the registry broke off, it is tried again" if self.broke else known


@dataclass(frozen=True, slots=True)
class Failure:
    """A pull that failed, how often, when to try again on the monotonic clock, and who waits for that."""

    error: CrucibleError
    count: int
    again_at: float
    waiting: set[str]


class Pulls:
    """Every pull of one engine."""

    def __init__(self, engine: Engine, settings: DockerSettings, ring: Callable[[str], None]) -> None:
        self._engine = engine
        self._settings = settings
        self._ring = ring
        self._running: dict[str, Pull] = {}
        self._failed: dict[str, Failure] = {}
        self._fresh: dict[tuple[str, str], float] = {}
        self._queue: set[str] = set()

    def ask(self, reference: str, plugin_uid: str) -> None:
        """Return if an image was just pulled for this plugin; else begin to pull it if nobody did.

        One answer is good for one plugin, once: who asks again wants to know what the registry has by then.

        Raises:
            Underway: it is being pulled; the plugin is rung when there is more to say.
            InvalidSource: it cannot be had as it is named.
            Unavailable: its registry does not answer.
        """
        now = time.monotonic()
        if self.taken(reference, plugin_uid):
            return
        pull = self._running.get(reference)
        if pull is None:
            failure = self._failed.get(reference)
            if failure is not None and now < failure.again_at:
                failure.waiting.add(plugin_uid)
                raise failure.error
            pull = self._begin(reference, plugin_uid, now)
        pull.waiting.add(plugin_uid)
        if now - pull.heard >= self._settings.stale:
            raise Unavailable(
                f"the registry of {reference} hangs: nothing came for {self._settings.stale:g} s; the pull "
                "goes on, but look whether the registry can be reached from the engine"
            )
        raise Underway(f"pulling {reference}{pull.progress}")

    def taken(self, reference: str, plugin_uid: str) -> bool:
        """Use up what was pulled for a plugin; return whether that was just now."""
        until = self._fresh.pop((reference, plugin_uid), 0.0)
        return time.monotonic() < until

    def _begin(self, reference: str, plugin_uid: str, now: float) -> Pull:
        if len(self._running) >= MOST:
            self._queue.add(plugin_uid)
            raise Underway(f"pulling {reference}: waits for {MOST} other pulls")
        pull = self._running[reference] = Pull(heard=now, said=now)
        loop = asyncio.get_running_loop()
        loop.call_later(self._settings.stale, self._watch, reference, pull)
        thread = threading.Thread(
            target=self._work, args=(reference, pull, loop), name="docker-pull", daemon=True
        )
        thread.start()
        return pull

    def _watch(self, reference: str, pull: Pull) -> None:
        """Have it said when the registry falls silent, and again when it speaks."""
        if self._running.get(reference) is not pull:
            return
        silent = time.monotonic() - pull.heard
        rest = self._settings.stale - silent
        if rest <= 0:
            self._tell(pull)
        asyncio.get_running_loop().call_later(rest if rest > 0 else 1.0, self._watch, reference, pull)

    def _work(self, reference: str, pull: Pull, loop: asyncio.AbstractEventLoop) -> None:
        """Pull, in a thread of its own: a registry that hangs holds up nobody else."""
        error: CrucibleError | None = None
        try:
            with contextlib.closing(self._engine.another()) as client:
                known = credentials(reference)
                for message in client.pull(reference, stream=True, decode=True, auth_config=known):
                    if "error" in message:
                        error = failure_of(reference, str(message["error"]))
                    loop.call_soon_threadsafe(self._hear, pull, message)
        except (errors.DockerException, requests.RequestException, OSError, RuntimeError) as problem:
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
        now = time.monotonic()
        self._fresh = {key: until for key, until in self._fresh.items() if now < until}
        if error is None:
            self._failed.pop(reference, None)
            self._fresh.update({(reference, plugin_uid): now + _FRESH for plugin_uid in pull.waiting})
        else:
            before = self._failed.get(reference)
            count = before.count + 1 if before else 1
            pause = min(self._settings.retry * 2.0 ** (count - 1), _RETRY_LONGEST)
            failure = self._failed[reference] = Failure(error, count, now + pause, set(pull.waiting))
            asyncio.get_running_loop().call_later(pause, self._again, reference, failure)
        self._tell(pull)
        queue, self._queue = self._queue, set()
        self._ring_all(queue)

    def _again(self, reference: str, failure: Failure) -> None:
        self._ring_all(failure.waiting)
        # Nobody wants it any more: forget how often it failed.
        asyncio.get_running_loop().call_later(_RETRY_LONGEST, self._forget, reference, failure)

    def _forget(self, reference: str, failure: Failure) -> None:
        if self._failed.get(reference) is failure and reference not in self._running:
            del self._failed[reference]

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
    if any(word in lower for word in _OTHER_HOST):
        return Unavailable(f"the registry of {reference} does not answer: {text}")
    if _OTHER_MACHINE in lower:
        return InvalidSource(f"image {reference} is not made for this engine's machine: {text}")
    if any(word in lower for word in _ABSENT):
        return InvalidSource(f"image {reference} does not exist in its registry: check name and tag ({text})")
    if any(word in lower for word in _ALTERED):
        return InvalidSource(
            f"image {reference} is not what its digest names: the registry serves something else ({text})"
        )
    return Unavailable(f"the registry of {reference} does not answer: {text}")
