"""Waiting for something to become so, with a deadline; and knowing early that it will not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from crucible.cli.exits import Failed, WrongUsage
from crucible.cli.objects import condition, holds
from crucible.model import names
from crucible.model.quantity import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PAUSE_FIRST: Final = 0.05
_PAUSE_LONGEST: Final = 0.5


def seconds_of(text: str) -> float:
    """Return the seconds of a ``--timeout``.

    Raises:
        WrongUsage: it is no duration.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise WrongUsage(f"--timeout: {error}") from None


LASTING: Final = 0.5
"""Seconds for which a plugin must stay ready to be called so: one that dies at once is, for a moment."""


def wait_until(
    done: Callable[[], bool], seconds: float, what: Callable[[], str], *, lasting: float = 0.0
) -> None:
    """Look again and again, ever less often, until it is so.

    Args:
        done: looks.
        seconds: how long to go on.
        what: says what is so instead, once time is up.
        lasting: seconds for which it must stay so.

    Raises:
        Failed: time ran out.
    """
    deadline = time.monotonic() + seconds
    pause = _PAUSE_FIRST
    since: float | None = None
    while True:
        if done():
            since = time.monotonic() if since is None else since
            if time.monotonic() - since >= lasting:
                return
        else:
            since = None
        left = deadline - time.monotonic()
        if left <= 0:
            raise Failed(f"{what()}; waited {seconds:g} s")
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _PAUSE_LONGEST)


def is_ready(plugin: Mapping[str, Any], *, stale: str | None = None) -> bool:
    """Whether a Plugin runs as it was last asked to.

    Args:
        plugin: the object.
        stale: a revision that should be gone; None where any will do.

    Raises:
        Failed: it will not become ready until a person does something.
    """
    status = plugin.get("status") or {}
    if status.get("observedGeneration", 0) < plugin["metadata"].get("generation", 1):
        return False
    expect_no_frost(plugin)
    if stale is not None and status.get("revision") == stale:
        return False
    if holds(plugin, "Stalled"):
        why = condition(plugin, "Stalled")
        raise Failed(f"{plugin['metadata']['name']} will not come up: {why.get('message')}")
    if holds(plugin, "Reconciling"):  # what serves is the revision before
        return False
    return holds(plugin, "Ready") or status.get("phase") == "Suspended"


def expect_no_frost(plugin: Mapping[str, Any]) -> None:
    """See that a Plugin is not held still.

    Raises:
        Failed: it is, and people asked for that: nothing becomes of it until they ask for something else.
    """
    meta = plugin["metadata"]
    frozen = (plugin.get("status") or {}).get("phase") == "Frozen"
    if frozen and names.FROZEN in (meta.get("annotations") or {}):
        raise Failed(f"{meta['name']} is frozen: run 'crucible thaw {meta['name']}' to have that done")


def unready(plugin: Mapping[str, Any]) -> str:
    """Say what keeps a Plugin from being ready."""
    why = condition(plugin, "Ready").get("message") or "the controller has not spoken of it yet"
    return f"{plugin['metadata']['name']} is not ready: {why}"
