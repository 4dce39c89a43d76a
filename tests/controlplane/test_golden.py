"""What a real 1.36 API server answered, asked of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import yaml
from golden import every_answer
from probe import probing

from crucible.control.apiserver import ApiServer, ServerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden-1.36.json").read_text())
KNOWN_DIFFERENCES: dict[str, str] = {}
"""Golden answers that ours differ from, and why; docs/controlplane-differences.md tells users."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def answers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Any]]:
    state = tmp_path_factory.mktemp("golden")
    crd = yaml.safe_load((Path(__file__).parent / "crd.yaml").read_text())
    async with (
        ApiServer(ServerSettings(state_dir=state)) as server,
        probing(server.url, server.ca, server.token) as probe,
    ):
        yield json.loads(json.dumps(await every_answer(probe, crd)))


@pytest.mark.parametrize("name", sorted(GOLDEN))
@pytest.mark.asyncio(loop_scope="module")
async def test_answers_as_the_real_server_does(name: str, answers: dict[str, Any]) -> None:
    if name in KNOWN_DIFFERENCES:
        assert answers[name] != GOLDEN[name]
    else:
        assert answers[name] == GOLDEN[name]
