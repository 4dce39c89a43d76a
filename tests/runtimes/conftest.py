"""Fixtures of the runtime tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the harness is shared by this folder's files

from harness import FakeHarness, Looks, ProcessHarness
from harness_docker import DockerHarness

from crucible.runtimes.process import sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine import Engine


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One set of root file systems for the session: they take a second to make."""
    return tmp_path_factory.mktemp("roots")


@pytest.fixture(scope="session")
def looks() -> Looks:
    return Looks()


@pytest.fixture
async def process(
    tmp_path: Path, roots: Path, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ProcessHarness]:
    monkeypatch.setattr(sandbox, "_probe", looks)
    harness = ProcessHarness(tmp_path, roots, os.environ.get("CRUCIBLE_TEST_CGROUP_PARENT"))
    await harness.open()
    yield harness
    await harness.close()


@pytest.fixture
async def docker(tmp_path: Path, engine: Engine) -> AsyncIterator[DockerHarness]:
    harness = DockerHarness(tmp_path, engine)
    await harness.open()
    yield harness
    await harness.close()


@pytest.fixture
async def fake() -> AsyncIterator[FakeHarness]:
    harness = FakeHarness()
    await harness.open()
    yield harness
    await harness.close()


@pytest.fixture(params=["fake", "process", "docker"])
def harness(request: pytest.FixtureRequest) -> Any:
    """Every runtime in turn. A new one is a harness like these, and its name here."""
    return request.getfixturevalue(request.param)
