"""The API server goes away, forgets, refuses and stumbles; plugins neither stop nor come twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from faults import Answer
    from ground import LocalGround


async def start_three(local: LocalGround) -> None:
    local.start()
    for name in ("a", "b", "c"):
        await local.apply(name)
    for name in ("a", "b", "c"):
        await local.until_ready(name)


async def see_a_crash(local: LocalGround, name: str, attempt: int) -> None:
    """Crash a plugin, and wait until its next instance runs: the operator sees, acts and says so."""
    (pod,) = await local.running(name)
    await local.kubelet.finish(pod, 3)

    async def again() -> bool:
        found = [each["metadata"]["name"] for each in await local.running(name)]
        return found == [f"{name}-0-{attempt}"]

    await local.until(again)
    await local.until_ready(name)


def once(local: LocalGround) -> bool:
    return all(most == 1 for most in local.kubelet.most.values())


async def test_watches_that_are_cut_go_on_where_they_were(local: LocalGround) -> None:
    await start_three(local)
    for turn in range(3):
        local.faults.cut()
        await see_a_crash(local, "a", turn + 2)
    assert once(local)
    assert "listed anew" not in local.log()


async def test_a_server_that_was_away_finds_everything_as_it_was(local: LocalGround) -> None:
    await start_three(local)
    local.faults.away = True
    local.faults.cut()
    (pod,) = await local.running("a")
    await local.kubelet.finish(pod, 3)
    await local.change("b", config={"changed": "while the operator saw nothing"})
    await local.until(lambda: "leads no more" in local.log())
    local.faults.away = False
    for name in ("a", "b", "c"):
        await local.until_ready(name)
    (left,) = await local.running("c")
    assert left["metadata"]["name"] == "c-0-1"
    assert once(local) or local.kubelet.most == {**local.kubelet.most, "default/b/0": 2}  # b takes over
    assert local.operators["one"].poll() is None


async def test_a_server_that_has_forgotten_is_listed_anew(local: LocalGround) -> None:
    await start_three(local)
    forgotten = set()

    def gone(_: str, path: str) -> Answer | None:
        if path.endswith("?watch") and path not in forgotten:
            forgotten.add(path)
            return 410, "too old resource version"
        return None

    local.faults.answer = gone
    local.faults.cut()
    await see_a_crash(local, "a", 2)
    await local.until(lambda: "/api/v1/pods?watch" in forgotten)
    await see_a_crash(local, "a", 3)
    assert once(local)
    assert "listed anew" in local.log()


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_answers_that_fail_now_and_then_only_take_longer(local: LocalGround, code: int) -> None:
    dice = random.Random(code)
    stumbles: Counter[tuple[str, str]] = Counter()

    def stumble(verb: str, path: str) -> Answer | None:
        asked = (verb, path)
        if "leases" in path or stumbles[asked] >= 2 or dice.random() > 0.3:
            return None
        stumbles[asked] += 1
        return code, f"{verb} stumbled"

    local.faults.answer = stumble
    await start_three(local)
    await local.change("a", config={"value": 2})
    await local.until_ready("a")
    assert sum(stumbles.values()) > 5
    local.faults.answer = lambda _verb, _path: None
    await local.delete("b")

    async def gone() -> bool:
        return not await local.pods("b")

    await local.until(gone)
    assert {name: most for name, most in local.kubelet.most.items() if most > 1}.keys() <= {"default/a/0"}


async def test_what_was_asked_for_and_not_answered_is_not_done_twice(local: LocalGround) -> None:
    """Half of all pods are made although the operator never hears of it."""
    dice = random.Random(7)
    doubled: list[str] = []

    def lost(verb: str, path: str) -> Answer | None:
        if verb == "POST" and path.endswith("/pods") and dice.random() < 0.5:
            doubled.append(path)
            return 504, "the answer got lost"
        return None

    local.faults.answer_after = lost
    local.start()
    await asyncio.gather(*(local.apply(f"p{number}") for number in range(8)))
    for number in range(8):
        await local.until_ready(f"p{number}")
    assert doubled
    assert once(local)
    assert len(await local.pods()) == 8


async def test_a_slow_server_is_waited_for(local: LocalGround) -> None:
    local.faults.latency = 0.5
    await start_three(local)
    await see_a_crash(local, "a", 2)
    assert once(local)
    assert local.log().count("leads") == 1, "a slow answer cost the Lease"
