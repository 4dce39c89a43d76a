"""Following the output of every replica of a plugin at once, across restarts."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from crucible.cli.instances import InstanceName, instances, newest
from crucible.cli.objects import core, plugin_path
from crucible.errors import CrucibleError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crucible.cli.api import Api

_LOOK_AGAIN: Final = 0.3
"""Seconds between two looks for a new instance."""
_LINES_HELD: Final = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """Whose output to follow.

    Attributes:
        namespace: of the plugin.
        plugin: its name.
        only: one instance, and no longer than that; None for all there are and will be.
        params: what else to ask of the API for every instance.
    """

    namespace: str
    plugin: str
    only: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)


class Tailing:
    """Reads each instance in a thread of its own, and hands the lines over one at a time."""

    def __init__(self, api: Api, target: Target) -> None:
        self._api = api
        self._target = target
        self._said: queue.Queue[tuple[InstanceName, bytes | CrucibleError | None]] = queue.Queue(_LINES_HELD)
        self._begun: set[InstanceName] = set()
        self._reading: set[InstanceName] = set()

    def run(self, tail: int, write: Callable[[str, bytes], None], *, named: bool = False) -> None:
        """Write every line as it comes, until the plugin, or the one instance, is gone.

        Args:
            tail: how many lines of what is there to begin with; -1 for all.
            write: takes a label and a line.
            named: label each line even while there is one replica only.
        """
        while True:
            for name in self._fresh():
                self._begin(name, tail)
            tail = -1
            self._drain(write, named=named)
            if not self._reading and (self._target.only is not None or self._is_gone()):
                return

    def _fresh(self) -> list[InstanceName]:
        """Return the instances to begin to read: at first the newest, later every one that appears."""
        found = instances(self._api, self._target.namespace, self._target.plugin)
        if self._target.only is not None:
            chosen = [name for name in found if str(name) == self._target.only]
            if not chosen and not self._begun:
                raise NotFound(
                    f"{self._target.plugin} has no instance {self._target.only}: "
                    f"see 'crucible describe {self._target.plugin}'"
                )
            return [name for name in chosen if name not in self._begun]
        if not self._begun:
            return list(newest(found))
        return [name for name in found if name.attempt > self._latest(name.ordinal)]

    def _latest(self, ordinal: int) -> int:
        return max((name.attempt for name in self._begun if name.ordinal == ordinal), default=0)

    def _begin(self, name: InstanceName, tail: int) -> None:
        self._begun.add(name)
        self._reading.add(name)
        threading.Thread(target=self._read, args=(name, tail), name=f"log of {name}", daemon=True).start()

    def _read(self, name: InstanceName, tail: int) -> None:
        params = {**self._target.params, "follow": "true"} | ({} if tail < 0 else {"tailLines": str(tail)})
        try:
            path = f"{core(self._target.namespace, 'pods')}/{name}/log"
            with self._api.stream(path, params) as lines:
                for line in lines:
                    self._said.put((name, line))
        except NotFound:
            pass  # it was cleared away before its first line was asked for
        except CrucibleError as error:
            self._said.put((name, error))
            return
        self._said.put((name, None))

    def _drain(self, write: Callable[[str, bytes], None], *, named: bool) -> None:
        """Write what arrives until it is time to look for new instances."""
        several = named or len({name.ordinal for name in self._begun}) > 1
        deadline = time.monotonic() + _LOOK_AGAIN
        while (left := deadline - time.monotonic()) > 0:
            try:
                name, what = self._said.get(timeout=left)
            except queue.Empty:
                return
            match what:
                case None:
                    self._reading.discard(name)
                case bytes():
                    write(f"[{name}] " if several else "", what)
                case CrucibleError():
                    raise what

    def _is_gone(self) -> bool:
        try:
            self._api.get(plugin_path(self._target.namespace, self._target.plugin))
        except NotFound:
            return True
        return False
