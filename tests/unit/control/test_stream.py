from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from crucible.control.stream import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import aiohttp


class Content:
    """What aiohttp would read off a connection, in these pieces."""

    total_bytes = 42

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = pieces

    async def iter_any(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


def line(kind: str, name: str, version: str) -> bytes:
    meta = {"name": name, "uid": name, "resourceVersion": version}
    return json.dumps({"type": kind, "object": {"metadata": meta}}).encode() + b"\n"


async def read(*pieces: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what kopf reads, and what versions of a Plugin ``known`` its loop was told of."""
    told: list[str] = []

    def follow(plugin: dict[str, Any]) -> bool:
        if plugin["metadata"]["name"] != "known":
            return False
        told.append(plugin["metadata"]["resourceVersion"])
        return True

    stream = Stream(cast("aiohttp.StreamReader", Content(pieces)), follow)
    left = b"".join([piece async for piece in stream.iter_chunked(1)])
    return [json.loads(one) for one in left.splitlines()], told


async def test_a_change_of_a_known_plugin_goes_to_its_loop_and_leaves_a_bookmark() -> None:
    left, told = await read(line("MODIFIED", "known", "7") + line("MODIFIED", "known", "8"))
    assert told == ["7", "8"]
    assert [one["type"] for one in left] == ["BOOKMARK"]
    assert left[0]["object"]["metadata"] == {"resourceVersion": "8"}


async def test_all_else_goes_on_as_it_is() -> None:
    lines = [
        line("ADDED", "known", "1"),
        line("MODIFIED", "other", "2"),
        line("DELETED", "known", "3"),
        b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "4"}}}\n',
        b'{"type": "ERROR", "object": {"code": 410}}\n',
    ]
    left, told = await read(b"".join(lines))
    assert left == [json.loads(one) for one in lines]
    assert told == []


async def test_no_bookmark_is_left_where_something_newer_goes_on() -> None:
    left, told = await read(line("MODIFIED", "known", "7") + line("ADDED", "other", "8"))
    assert told == ["7"]
    assert [one["type"] for one in left] == ["ADDED"]


async def test_lines_come_together_from_any_pieces() -> None:
    whole = line("MODIFIED", "known", "7") + line("ADDED", "other", "8") + line("MODIFIED", "known", "9")
    for size in (1, 7, 50):
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        left, told = await read(*pieces)
        assert told == ["7", "9"]
        assert [one["type"] for one in left if one["type"] != "BOOKMARK"] == ["ADDED"]
        assert left[-1]["object"]["metadata"]["resourceVersion"] == "9"


async def test_what_is_no_json_is_left_to_kopf() -> None:
    stream = Stream(cast("aiohttp.StreamReader", Content([b"{half a li", b"ne"])), lambda _: True)
    assert b"".join([piece async for piece in stream.iter_chunked(1)]) == b"{half a line"


def test_all_other_questions_go_to_what_it_was_made_of() -> None:
    stream = Stream(cast("aiohttp.StreamReader", Content([])), lambda _: True)
    assert stream.total_bytes == 42
