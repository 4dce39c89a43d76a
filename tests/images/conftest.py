"""What the tests of hosts and images share: programs and archives, made as they are for a user."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runtimes"))  # the process runtime's harness
sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import ProcessHarness
from imagelib import debian, make, recipes, rune
from stage import Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from imagelib.make import Made

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def rune_host() -> Path:
    """The program that runs Rune scripts, built now unless it is up to date."""
    return rune.build(print)


@pytest.fixture
def rune_stage(tmp_path: Path, rune_host: Path) -> Stage:
    return Stage(tmp_path, (str(rune_host),))


@pytest.fixture
def wasm_stage(tmp_path: Path) -> Stage:
    host = REPOSITORY / "controller/crucible/hosts/wasm.py"
    return Stage(tmp_path, (sys.executable, "-I", "-B", str(host)))


@pytest.fixture(scope="session")
def images() -> Mapping[str, Made]:
    """Every image, made now unless it is up to date."""
    try:
        debian.check()
    except debian.Unavailable as reason:
        pytest.skip(str(reason))
    return {one.type: one for one in make.images(recipes.TYPES, print)}


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("roots")


@pytest.fixture
async def process(tmp_path: Path, roots: Path, rune_host: Path) -> AsyncIterator[ProcessHarness]:
    assert rune_host.is_file()
    harness = ProcessHarness(tmp_path, roots, os.environ.get("CRUCIBLE_TEST_CGROUP_PARENT"))
    await harness.open()
    yield harness
    await harness.close()
