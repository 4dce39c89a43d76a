"""Memory that all queues of the broker share."""

import pytest

from crucible.bus.queue import FairQueue
from crucible.bus.room import RESERVED, Room


def test_who_has_taken_much_is_refused_first_and_all_have_a_bound() -> None:
    room = Room(RESERVED * 10)
    assert sum(takes(room, "greedy") for _ in range(100)) == RESERVED
    taken = [takes(room, f"p{number}") for number in range(100)]
    assert taken == [True] * RESERVED + [False] * 36
    assert room.total == 2 * RESERVED * 10
    room.give_back("greedy", RESERVED * 10)
    assert not takes(room, "p0"), "it has its part, and there is no more than all have"
    room.give_back("p1", 10)
    assert takes(room, "p0")


def takes(room: Room, owner: str) -> bool:
    if not room.has(owner):
        return False
    room.take(owner, 10)
    return True


@pytest.mark.parametrize("leave", ["pop", "clear", "discard"])
def test_queues_give_back_what_they_took(leave: str) -> None:
    room = Room(1000)
    first: FairQueue[int] = FairQueue(room=room, owner="a")
    second: FairQueue[int] = FairQueue(room=room, owner="b")
    tickets = [first.push("x", 2, number, 300) for number in range(5)]
    assert [ticket is not None for ticket in tickets] == [True] * 4 + [False]
    assert second.push("x", 2, 0, 10) is not None, "it has little"
    assert second.push("x", 2, 1, 10) is not None
    assert second.push("x", 2, 2, 10) is None
    for ticket in tickets[:4]:
        if leave == "pop":
            assert first.pop() is not None
        elif leave == "discard" and ticket is not None:
            first.discard(ticket, 2)
    if leave == "clear":
        first.clear()
    assert (first.count, room.total) == (0, 20)
    second.clear()
    assert room.total == 0
