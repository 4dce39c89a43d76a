"""A runtime whose works have ended says so, and lets nobody wait for what will not come."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import virtualclock

from crucible.errors import NotFound
from crucible.runtimes.kubernetes import KubernetesRuntime, KubernetesSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


class Server:
    """Has nothing, and what it says of pods can be what nobody foresaw."""

    def __init__(self) -> None:
        self.pods: Any = {"metadata": {"resourceVersion": "5"}, "items": []}

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        if "metrics" in path:
            raise NotFound("no metrics")
        return self.pods if path.endswith("/pods") else {"metadata": {"resourceVersion": "5"}, "items": []}

    @asynccontextmanager
    async def watch(self, *_: Any) -> AsyncIterator[Any]:
        yield self._silent()

    async def _silent(self) -> AsyncIterator[dict[str, Any]]:
        await asyncio.sleep(3600)
        yield {}


def runtime_on(server: Any) -> KubernetesRuntime:
    return KubernetesRuntime(server, KubernetesSettings(), lambda _: {}, time.time)


def test_opening_fails_where_what_follows_pods_has_ended_instead_of_waiting_for_ever() -> None:
    server = Server()
    server.pods = {"kind": "Nonsense"}
    runtime = runtime_on(server)

    async def main() -> None:
        try:
            await runtime.open(lambda _: None)
        finally:
            await runtime.close()

    with pytest.raises(RuntimeError, match="what follows /api/v1/pods ended: KeyError"):
        virtualclock.run(main())


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_it_does_not_stand_once_a_work_has_ended_however_that_was(how: str) -> None:
    runtime = runtime_on(Server())

    async def main() -> None:
        await runtime.open(lambda _: None)
        assert not runtime.broken
        work = next(task for task in runtime._tasks if task.get_name() == "the upkeep")
        if how == "failed":
            runtime._upkeep._pods = None  # type: ignore[assignment]
            runtime._upkeep.look("uid")
        else:
            work.cancel()
        try:
            await runtime.stand()
        finally:
            assert "the upkeep" in runtime.outage
            await runtime.close()

    with pytest.raises(RuntimeError, match=r"the upkeep (was cancelled|ended: AttributeError)"):
        virtualclock.run(main())


def test_one_that_is_closed_is_not_broken() -> None:
    runtime = runtime_on(Server())

    async def main() -> None:
        await runtime.open(lambda _: None)
        await runtime.close()
        assert not runtime.broken

    virtualclock.run(main())
