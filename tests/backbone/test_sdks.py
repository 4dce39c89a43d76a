"""Durable events by each SDK, against a real backbone."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import pytest
from raw import words
from sandboxless import PROGRAMS, REPOSITORY, Program, until

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Pair

PROGRAM = {"python": "durable.py", "asyncio": "durable_aio.py", "javascript": "durable.mjs"}


def command(language: str, folder: Path) -> tuple[str, ...]:
    """Return how the program is run, with its SDK where the sandbox would have it."""
    source = PROGRAMS / PROGRAM[language]
    if language != "javascript":
        return (sys.executable, "-s", "-S", "-B", "-u", str(source))
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not here: install nodejs")
    (folder / "plugin").mkdir()
    (folder / "node_modules").symlink_to(REPOSITORY / "plugin-images/javascript/sdk")
    return (node, shutil.copy(source, folder / "plugin"))


@pytest.mark.parametrize("language", PROGRAM)
async def test_events_are_put_taken_and_followed(pair: Pair, tmp_path: Path, language: str) -> None:
    await pair.meet()
    await pair.backbone.make_streams("here")
    door = pair.alpha.plugin("everything", publish=("notes.*",), subscribe=("notes.*",))
    editor = await pair.beta.add("editor", publish=("notes.*",))
    path = str(REPOSITORY / "plugin-images/python/sdk")
    program = await Program.start(command(language, tmp_path), door, tmp_path, PYTHONPATH=path)
    await until(lambda: "follows" in program.messages or program.process.returncode is not None)
    begun, kept, *taken, _ = program.lines
    assert begun["nothing"] is True
    assert kept["numbers"] == [1, 2, 3, 3]
    assert [(line["subject"], line["caller"], line["payload"]) for line in taken] == [
        ("notes.saved", "everything", {"n": 0}),
        ("notes.saved", "everything", {"n": 1}),
        ("notes.saved", "everything", [0, 1]),
    ]
    answer = await editor.call(1, "$events.put", b'"far"', headers={"subject": "notes.read"})
    assert words(answer) == ("ANSWER", 1, "")
    await until(lambda: "followed" in program.messages)
    assert (program.lines[-1]["caller"], program.lines[-1]["payload"]) == ("editor@beta", "far")
    program.ask_to_stop()
    assert await program.end() == 0, program.errors
