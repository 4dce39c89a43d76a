"""What the broker tells of plugins on the bus, and to whom."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from raw import words

from crucible.bus.wire import Frame, Kind
from crucible.companions import link

if TYPE_CHECKING:
    import pytest
    from raw import Raw

    from conftest import Bus


async def figures(host: Raw, ident: int, **headers: str) -> dict[str, Any]:
    answer = await host.call(ident, "$bus.figures", headers=headers)
    return dict(json.loads(answer.payload))


async def test_what_was_done_and_what_waits_is_told_of_each_plugin(bus: Bus) -> None:
    server = await bus.add("tokenizer", "split", "join")
    notes = await bus.add("notes", call=("tokenizer.*",), publish=("notes.saved",), subscribe=("notes.*",))
    await notes.ask(Frame(Kind.SUBSCRIBE, 1, "notes.*"))
    notes.send(Frame(Kind.PUBLISH, 0, "notes.saved", b"1"))
    assert (await notes.next()).kind == Kind.MESSAGE
    assert words(await notes.call(3, "other.method"))[2] == "NotPermitted"
    notes.send(Frame(Kind.CALL, 5, "tokenizer.split"), Frame(Kind.CALL, 7, "tokenizer.split"))
    asked = await server.next()
    await server.next()
    server.send(Frame(Kind.ANSWER, asked.id))
    assert (await notes.next()).kind == Kind.ANSWER
    await bus.add("elsewhere", namespace="there")
    host = await bus.join(bus.host, namespace="here")
    told = await figures(host, 1)
    assert not told["more"]
    nothing = {"unread": 0, "waiting": 0, "connections": 1, "namespace": "here"}
    assert told["plugins"] == [
        {
            **nothing,
            "plugin": "notes",
            "methods": 0,
            "subscriptions": 1,
            "open": 1,
            "serving": 0,
            "calls": 3,
            "answered": 0,
            "published": 1,
            "delivered": 1,
            "faults": {"refused": 1},
        },
        {
            **nothing,
            "plugin": "tokenizer",
            "methods": 2,
            "subscriptions": 0,
            "open": 0,
            "serving": 1,
            "calls": 0,
            "answered": 1,
            "published": 0,
            "delivered": 0,
            "faults": {},
        },
    ]
    assert [one["plugin"] for one in (await figures(host, 3, namespace="there"))["plugins"]] == ["elsewhere"]
    everywhere = (await figures(host, 5, namespace="*"))["plugins"]
    assert [one["plugin"] for one in everywhere] == ["notes", "tokenizer", "elsewhere"]


async def test_no_plugin_is_told_of_others(bus: Bus) -> None:
    curious = await bus.add("curious")
    assert words(await curious.call(1, "$bus.figures")) == ("ERROR", 1, "NotPermitted")
    assert words(await curious.call(3, "$bus.figures", headers={"namespace": "*"}))[2] == "NotPermitted"


async def test_however_many_there_are_they_come_in_pages(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PAGE", 600)
    for number in range(7):
        bus.plugin(f"p{number}")
    host = await bus.join(bus.host, namespace="here")
    found: list[str] = []
    pages, more, after = 0, True, ""
    while more:
        told = await figures(host, 2 * pages + 1, **({"after": after} if after else {}))
        found += [one["plugin"] for one in told["plugins"]]
        pages, more, after = pages + 1, told["more"], f"here/{found[-1]}"
    assert found == [f"p{number}" for number in range(7)]
    assert pages > 2
