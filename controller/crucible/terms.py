"""One term of leadership: it goes on while the Lease is ours, and is over in time, or the process is.

Whoever cannot stop must not stay either: nobody would hear of it, and with the Lease it may go on to hold
everybody else back. Such a process ends with an exit code other than 0, to be started anew.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from crucible.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    Leave = Callable[[str], None]
    Serve = Callable[["Term"], Coroutine[Any, Any, None]]

log = logging.getLogger(__name__)

EXIT: Final = 1
"""Exit code of a process that could not end as it should."""
_CUTS: Final = 3
_REARMED: Final = 6
"""How often the watch over the event loop is set anew in the time that it waits."""


class Leadership(Protocol):
    """Our part in the Lease, which is ours."""

    async def keep(self, stop: asyncio.Event) -> None:
        """Renew until it is lost, or ``stop`` is set."""

    async def release(self) -> None:
        """Give it up."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long what may take, in seconds.

    Attributes:
        beginning: until Plugins are watched, while the Lease is ours.
        ending: from the word that a term is over until it is.
        cutting: the same, once it was cut off.
    """

    beginning: float = 120.0
    ending: float = 30.0
    cutting: float = 15.0


class Term:
    """What a term hears and says.

    Attributes:
        over: set once it has to end.
        begun: to be set once it does what it is for.
    """

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.begun = asyncio.Event()


def leave_at_once(why: str) -> NoReturn:
    """End this process, whatever still goes on in it."""
    log.critical("%s: this process ends, to be started anew", why)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(EXIT)


async def lead(
    lease: Leadership,
    serve: Serve,
    stop: asyncio.Event,
    *,
    patience: Patience = Patience(),
    leave: Leave = leave_at_once,
) -> None:
    """Serve one term: until told to stop, or until the Lease is lost, which ends all writing by itself.

    Args:
        lease: ours, just now.
        serve: does the work until the term is over.
        stop: set to end it.
        patience: how long what may take.
        leave: ends the process; told why.

    Raises:
        Unavailable: the term did not begin in time; another one may.
    """
    term, resigned = Term(), asyncio.Event()
    keeping = asyncio.create_task(lease.keep(resigned), name="the renewal of the lease")
    serving = asyncio.create_task(serve(term), name="the term")
    stopping = asyncio.create_task(stop.wait())
    late = await _until_over(term, {keeping, serving, stopping}, patience.beginning)
    where = where_of(serving)
    term.over.set()
    stopping.cancel()
    cut = await _end(serving, patience, leave)
    resigned.set()
    _look_at(keeping, cut=await _end(keeping, patience, leave))
    await lease.release()
    _look_at(serving, cut=cut)
    if late:
        raise Unavailable(
            f"Plugins were not watched within {patience.beginning:.0f} s, though the lease is ours: are the "
            f"CustomResourceDefinitions there, and may the operator list them? It was at {where}"
        )


async def _until_over(term: Term, tasks: set[asyncio.Task[Any]], beginning: float) -> bool:
    """Wait until one of these tasks ended; return whether the term had not even begun in time."""
    begun = asyncio.create_task(term.begun.wait())
    try:
        ended, _ = await asyncio.wait({*tasks, begun}, timeout=beginning, return_when=asyncio.FIRST_COMPLETED)
        if ended == {begun}:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        begun.cancel()
    return not ended


async def _end(task: asyncio.Task[None], patience: Patience, leave: Leave) -> bool:
    """Wait for the end of a task that was told to end; return whether it was late, and cut off.

    It is cut off more than once, for a cancellation can be lost on its way. Where that fails, leave.
    """
    await asyncio.wait({task}, timeout=patience.ending)
    if task.done():
        return False
    log.error(
        "%s has not ended within %.0f s and is cut off; it is at %s",
        task.get_name(),
        patience.ending,
        where_of(task),
    )
    for _ in range(_CUTS):
        task.cancel()
        await asyncio.wait({task}, timeout=patience.cutting / _CUTS)
        if task.done():
            return True
    leave(f"{task.get_name()} cannot be ended; it is at {where_of(task)}")
    return True


def _look_at(task: asyncio.Task[None], *, cut: bool) -> None:
    """Raise what ended a task, if it was not its work being done.

    Raises:
        RuntimeError: it was cancelled by nobody who may.
    """
    if cut and (not task.done() or task.cancelled()):
        return
    if task.cancelled():
        raise RuntimeError(f"{task.get_name()} was cancelled by itself")
    task.result()


def where_of(task: asyncio.Task[Any]) -> str:
    """Return where a task waits, from its own code down to what it waits for."""
    places: list[str] = []
    each: Any = task.get_coro()
    while each is not None:
        frame = getattr(each, "cr_frame", None) or getattr(each, "ag_frame", None)
        if frame is not None:
            places.append(f"{frame.f_code.co_qualname} line {frame.f_lineno}")
        each = getattr(each, "cr_await", None) or getattr(each, "ag_await", None)
    return " > ".join(places) or "no place that can be told"


async def be_seen_turning(seconds: float) -> None:
    """Go on until cancelled; should the event loop not turn for so long, the process ends.

    What every thread did is written to standard error then. This is the interpreter's own watch: it works
    even where no other thread comes to its turn.
    """
    try:
        while True:
            faulthandler.dump_traceback_later(seconds, exit=True)
            await asyncio.sleep(seconds / _REARMED)
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def timed_end(seconds: float, leave: Leave = leave_at_once) -> Iterator[Callable[[], None]]:
    """Yield what is to be called when the process begins to end; should that take longer, it is left.

    What an event loop does last has no bound of its own: it waits for all it cancelled, and for threads.
    """
    late = threading.Timer(seconds, leave, (f"the process has not ended within {seconds:.0f} s",))
    late.daemon = True
    try:
        yield late.start
    finally:
        late.cancel()
