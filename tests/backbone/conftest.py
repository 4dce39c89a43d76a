"""Two machines on one backbone: ``alpha`` and ``beta``; ``gamma`` was invited and keeps to no rules."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import uvloop
from backboned import ALL, Backbone, Joined, until
from raw import Raw
from replicas import Natted, Replicas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from crucible.model.backbone import Share


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run brokers on the loop that their program runs on."""
    return {"uvloop": uvloop.new_event_loop}


class Pair:
    """Two joined machines."""

    def __init__(self, backbone: Backbone, folder: Path) -> None:
        self.backbone = backbone
        self.alpha = Joined("alpha", folder / "alpha")
        self.beta = Joined("beta", folder / "beta")

    async def meet(self, alpha: Share = ALL, beta: Share = ALL) -> None:
        self.alpha.far.become(self.backbone.joining("alpha", alpha))
        self.beta.far.become(self.backbone.joining("beta", beta))
        await until(lambda: self.alpha.far.nats is not None and self.beta.far.nats is not None)

    async def meet_directly(self, alpha: int = 0, beta: int | None = None) -> None:
        """Join with direct lines; ports are those by which others come, of beta a free one unless said."""
        port = self.beta.lets_in() if beta is None else beta
        self.alpha.far.become(self.backbone.joining("alpha", line=alpha))
        self.beta.far.become(self.backbone.joining("beta", line=port))
        await self.lined()

    async def alpha_joins(self) -> None:
        """Let alpha be there too, and go to others directly."""
        self.alpha.far.become(self.backbone.joining("alpha", line=0))
        await until(lambda: self.alpha.far.nats is not None)

    async def lined(self) -> None:
        """Wait for a line."""
        await until(lambda: self.alpha.directly("beta") and self.beta.directly("alpha"))


@pytest.fixture
async def backbone(tmp_path: Path) -> AsyncIterator[Backbone]:
    made = Backbone(tmp_path / "backbone")
    made.invite("manager", manages=True)
    for name in ("alpha", "beta", "gamma"):
        made.invite(name, "here", "there")
    made.invite("outsider", "elsewhere")
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def pair(backbone: Backbone, tmp_path: Path) -> AsyncIterator[Pair]:
    made = Pair(backbone, tmp_path)
    yield made
    await Raw.hang_up()
    await asyncio.gather(made.alpha.close(), made.beta.close())


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[Replicas]:
    server = Natted(tmp_path / "nats")
    await server.start()
    made = Replicas(server, tmp_path)
    await made.meet()
    yield made
    await Raw.hang_up()
    await asyncio.gather(made.one.close(), made.two.close())
    server.kill()
