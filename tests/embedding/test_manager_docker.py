"""The same program, with containers: plugins of several types that call each other over the bus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crucible.errors import NotFound
from crucible.manager import PluginManager
from crucible.settings import Places
from crucible.teardown import end_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine import Engine

IMAGES = Path(__file__).parents[2] / "plugin-images"


@pytest.fixture
def state(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a state folder; end what was made from it."""
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    yield tmp_path / "state"
    end_all(Places(tmp_path / "state"), 5.0, print)


async def test_containers_call_each_other_and_keep_what_they_count(state: Path) -> None:
    async with PluginManager(state=state, runtime="docker") as manager:
        for type_ in ("python", "wasm", "rune"):
            await manager.apply(IMAGES / type_ / "example-bus")
        for name in ("tokenizer", "word-counter", "last-note", "summarizer"):
            await manager.wait(name, seconds=120)
            await manager.wait_on_bus(name, seconds=120)
        counted = await manager.call("word-counter.count", {"text": "to be or not to be"})
        assert (counted["words"], counted["different"]) == (6, 4)
        with pytest.raises(NotFound):
            await manager.call("word-counter.nothing")
        assert await manager.call("last-note.keep", "first") is None
        assert await manager.call("last-note.keep", "second") == "first"
        summary = await manager.call("summarizer.summary", {"text": "It rains. We stay in."})
        assert summary == {"first": "It rains", "sentences": 2, "total": 1}
        for name in ("word-counter", "tokenizer", "last-note", "summarizer"):
            await manager.delete(name)
