"""Of those who take part in a Lease, one at most may act at any moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crucible.control.lease import Lease, Terms
from crucible.errors import Conflict, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

TERMS = Terms(duration=10, deadline=7, interval=2)


class Server:
    """One Lease, and a clock for all; an answer can be lost before or after it is acted on."""

    def __init__(self) -> None:
        self.now = 100.0
        self.stored: dict[str, Any] | None = None
        self.up = True
        self.version = 0
        self.delay = 0.0

    def clock(self) -> float:
        return self.now

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        self._answer()
        if self.stored is None:
            raise NotFound(path)
        return self.stored

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self._answer()
        if self.stored is not None:
            raise Conflict("it is there")
        return self._store(body)

    async def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self._answer()
        if (
            self.stored is None
            or body["metadata"]["resourceVersion"] != self.stored["metadata"]["resourceVersion"]
        ):
            raise Conflict("it changed")
        return self._store(body)

    def _answer(self) -> None:
        self.now += self.delay
        if not self.up:
            raise Unavailable("away")

    def _store(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self.version += 1
        meta = {**body["metadata"], "resourceVersion": str(self.version)}
        self.stored = {**body, "metadata": meta}
        return self.stored


def taker(server: Server, name: str) -> Lease:
    return Lease(server, ("ns", "lease"), name, server.clock, TERMS)


async def test_the_first_has_it_and_the_second_has_not() -> None:
    server = Server()
    one, two = taker(server, "one"), taker(server, "two")
    assert await one._try()
    assert not await two._try()
    assert one.held()
    assert not two.held()


async def test_whoever_waits_takes_it_only_after_it_saw_no_renewal_for_its_whole_length() -> None:
    server = Server()
    one, two = taker(server, "one"), taker(server, "two")
    await one._try()
    server.now += 1000
    assert not await two._try()  # it cannot know for how long nobody renewed
    server.now += TERMS.duration - 0.1
    assert not await two._try()
    assert not one.held()
    server.now += 0.2
    assert await two._try()


async def test_a_renewal_counts_from_before_it_was_asked_for() -> None:
    server = Server()
    one = taker(server, "one")
    await one._try()
    server.delay = 3
    await one._try()
    server.now += TERMS.deadline - 3 - 0.1
    assert one.held()
    server.now += 0.2
    assert not one.held()


async def test_a_holder_that_cannot_renew_stops_before_another_may_begin() -> None:
    server = Server()
    one, two = taker(server, "one"), taker(server, "two")
    await one._try()
    await two._try()
    server.now += TERMS.deadline
    assert not one.held()
    assert not await two._try()


async def test_one_that_was_paused_may_not_act_when_it_goes_on() -> None:
    server = Server()
    one, two = taker(server, "one"), taker(server, "two")
    await one._try()
    await two._try()
    server.now += TERMS.duration + 0.1
    assert await two._try()
    assert not one.held()
    assert not await _renewed(one)
    assert not one.held()


async def test_what_is_given_up_is_taken_at_once() -> None:
    server = Server()
    one, two = taker(server, "one"), taker(server, "two")
    await one._try()
    await one.release()
    assert not one.held()
    assert await two._try()
    assert server.stored is not None
    assert server.stored["spec"]["leaseTransitions"] == 1


async def test_a_process_that_comes_back_under_its_own_name_need_not_wait() -> None:
    server = Server()
    await taker(server, "one")._try()
    assert await taker(server, "one")._try()


async def test_a_lease_that_somebody_else_writes_to_is_still_renewed() -> None:
    server = Server()
    one = taker(server, "one")
    await one._try()
    assert server.stored is not None
    server._store({**server.stored, "metadata": {**server.stored["metadata"], "labels": {"x": "y"}}})
    assert await one._try()


async def test_keeping_ends_when_the_server_stays_away() -> None:
    server = Server()
    one = Lease(server, ("ns", "lease"), "one", asyncio.get_running_loop().time, Terms(1, 0.05, 0.01))
    await one.acquire(asyncio.Event())
    server.up = False
    await one.keep(asyncio.Event())
    assert not one.held()
    assert not one.seen


async def test_waiting_ends_when_it_is_told_to() -> None:
    server = Server()
    server.up = False
    stop = asyncio.Event()
    waiting = asyncio.create_task(taker(server, "one").acquire(stop))
    await asyncio.sleep(0)
    stop.set()
    assert not await waiting


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("try"), st.sampled_from("abc")),
        st.tuples(st.just("release"), st.sampled_from("abc")),
        st.tuples(st.just("pass"), st.floats(0, 12)),
        st.tuples(st.just("away"), st.booleans()),
        st.tuples(st.just("slow"), st.sampled_from([0.0, 1.0, 8.0])),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_two_never_hold_it_at_once(steps: list[tuple[str, Any]]) -> None:
    async def play() -> None:
        server = Server()
        takers = {name: taker(server, name) for name in "abc"}
        for verb, value in steps:
            match verb:
                case "try":
                    await _renewed(takers[value])
                case "release":
                    await takers[value].release()
                case "pass":
                    server.now += value
                case "away":
                    server.up = value
                case "slow":
                    server.delay = value
            holders = [name for name, each in takers.items() if each.held()]
            assert len(holders) <= 1, holders

    asyncio.run(play())


async def _renewed(lease: Lease) -> bool:
    try:
        return await lease._try()
    except (Conflict, Unavailable):
        return False


@pytest.mark.parametrize("lasts", [None, 0])
async def test_a_lease_without_a_length_is_not_held_for_ever(lasts: int | None) -> None:
    server = Server()
    spec = {"holderIdentity": "gone", "leaseDurationSeconds": lasts}
    server._store({"metadata": {"name": "lease"}, "spec": spec})
    one = taker(server, "one")
    assert not await one._try()
    server.now += 1.1
    assert await one._try()
