"""What an operator answers to its cluster: whether it lives, whether it is of use, and its figures."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_ANYWHERE: Final = None
"""Every address, of both families: a kubelet asks from outside of the pod."""
_UNAVAILABLE: Final = 503
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Desk:
    """What is answered.

    Attributes:
        ill: why this process should be restarted; empty while it is well.
        unready: why it should not be counted on now; empty while it may be.
        figures: the metrics, in Prometheus' text format.
    """

    ill: Callable[[], str]
    unready: Callable[[], str]
    figures: Callable[[], str]


@asynccontextmanager
async def answering(desk: Desk, health_port: int, metrics_port: int) -> AsyncIterator[dict[str, int]]:
    """Answer on two ports, or on one for both; yield which those are, for 0 takes a free one."""

    async def health(_: web.Request) -> web.Response:
        return _verdict(desk.ill())

    async def ready(_: web.Request) -> web.Response:
        return _verdict(desk.unready())

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=desk.figures().encode(), headers={"content-type": METRICS_TYPE})

    probes = [web.get("/healthz", health), web.get("/readyz", ready)]
    figures = [web.get("/metrics", metrics)]
    if health_port == metrics_port != 0:
        groups = {"health": (health_port, [*probes, *figures])}
    else:
        groups = {"health": (health_port, probes), "metrics": (metrics_port, figures)}
    runners: list[web.AppRunner] = []
    try:
        ports = {}
        for name, (port, routes) in groups.items():
            application = web.Application()
            application.add_routes(routes)
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
            runners.append(runner)
            await runner.setup()
            await web.TCPSite(runner, _ANYWHERE, port).start()
            # A free port is another one for each family; addresses of IPv4 are the shorter ones.
            ports[name] = int(min(runner.addresses, key=len)[1])
        yield ports
    finally:
        for runner in runners:
            await runner.cleanup()


def _verdict(problem: str) -> web.Response:
    return web.Response(text=f"{problem}\n", status=_UNAVAILABLE) if problem else web.Response(text="ok\n")
