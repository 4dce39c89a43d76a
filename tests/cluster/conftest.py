"""Where the operator of a cluster is tried: a cluster without nodes, and any that KUBECONFIG names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from ground import Ground, LocalGround, RealGround
from meeting import Meeting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ENABLED = os.environ.get("CRUCIBLE_CLUSTER") == "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a cluster unless one was promised: that is no skip, nothing is missing here."""
    if ENABLED:
        return
    left = [item for item in items if item.get_closest_marker("cluster")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


def pytest_report_collectionfinish() -> str:
    """Say what was left out, and how to have it."""
    if ENABLED:
        return "cluster: on the one that KUBECONFIG names, too"
    return "cluster: without nodes; for a real one set KUBECONFIG and run `make cluster`"


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalGround]:
    """A cluster without nodes, and no operator yet."""
    async with LocalGround(tmp_path) as ground:
        yield ground


@pytest.fixture(params=["local", pytest.param("real", marks=pytest.mark.cluster)])
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    """A cluster with an operator: the one without nodes, and the one that KUBECONFIG names."""
    place: Ground = LocalGround(tmp_path) if request.param == "local" else RealGround(tmp_path)
    async with place:
        if place.operates:
            place.start()
        yield place


@pytest.fixture
async def meeting(local: LocalGround) -> AsyncIterator[Meeting]:
    """The same with an operator and a broker."""
    found = Meeting(local)
    try:
        await found.open()
        yield found
    finally:
        await found.close()
