"""A local control plane in a thread of a program that is something else."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from crucible.errors import CrucibleError, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from crucible.bootstrap import UpOptions

_PRIVATE = 0o077
_SIGNALS = "kopf._core.reactor.running"
"""Who warns that signals are not heard in a thread; they are the program's here, on purpose."""


class EmbeddedPlane:
    """One control plane, in its own thread and event loop.

    While it runs, files that the program makes are their owner's alone: the umask is the whole process's.
    """

    def __init__(self, options: UpOptions) -> None:
        self._options = replace(options, on_ready=self._ready)
        self._state: Future[Path] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._ends = threading.Event()
        self._umask = 0
        self._thread = threading.Thread(target=self._run, name="crucible", daemon=True)

    async def start(self) -> Path:
        """Start it; return its kubeconfig once Plugins are supervised.

        Raises:
            Conflict: another control plane uses the state folder.
            Unsupported: this host cannot run the runtime asked for.
        """
        self._umask = os.umask(_PRIVATE)
        self._thread.start()
        try:
            return await asyncio.wrap_future(self._state)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End it. Instances go on running, and the next control plane adopts them."""
        self._ends.set()  # for a loop that has not begun
        loop = self._loop
        if loop is not None and self._thread.is_alive():
            with suppress(RuntimeError):  # its loop has closed by itself meanwhile
                loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join)
        os.umask(self._umask)

    def _ready(self, kubeconfig: Path) -> None:
        self._state.set_result(kubeconfig)

    def _run(self) -> None:
        logging.getLogger(_SIGNALS).addFilter(_is_no_surprise)
        from crucible.bootstrap import serve  # noqa: PLC0415 - a second; who only connects needs none of it

        async def serving() -> None:
            self._loop = asyncio.get_running_loop()
            if self._ends.is_set():
                return
            await serve(self._options, self._stop)

        try:
            asyncio.run(serving())
        except BaseException as error:  # noqa: BLE001 - the thread's end is told to whoever started it
            self._failed(error)
        else:
            self._failed(Unavailable("the control plane ended"))

    def _failed(self, error: BaseException) -> None:
        if not self._state.done():
            self._state.set_exception(_first(error))


def _is_no_surprise(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("OS signals are ignored")


def _first(error: BaseException) -> BaseException:
    """Return what a group of errors is about: the first that was foreseen."""
    if isinstance(error, BaseExceptionGroup):
        foreseen, _ = error.split(CrucibleError)
        return _first((foreseen or error).exceptions[0])
    return error
