"""The order of waiting work: the guarantees of the queue, whatever comes in."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from crucible.bus.queue import ROUND, UNIT_BYTES, WEIGHTS, Bounds, FairQueue, units

SIZES = st.sampled_from([0, 100, UNIT_BYTES - 1, UNIT_BYTES, 5 * UNIT_BYTES, 40 * UNIT_BYTES])
WORK = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), SIZES), max_size=80)


def drain(queue: FairQueue[tuple[str, int, int, int]]) -> list[tuple[str, int, int, int]]:
    taken = []
    while (item := queue.pop()) is not None:
        taken.append(item)
    return taken


@given(WORK, st.data())
def test_all_that_waits_is_taken_once_and_each_sender_in_order(
    work: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    queue: FairQueue[tuple[str, int, int, int]] = FairQueue()
    tickets = []
    for number, (sender, priority, size) in enumerate(work):
        tickets.append((queue.push(sender, priority, (sender, priority, size, number), size), priority))
    gone = data.draw(st.sets(st.integers(0, len(work) - 1))) if work else set()
    for number in gone:
        ticket, priority = tickets[number]
        assert ticket is not None
        queue.discard(ticket, priority)
        queue.discard(ticket, priority)
    taken = drain(queue)
    assert sorted(item[3] for item in taken) == sorted(set(range(len(work))) - gone)
    for sender, priority in {(item[0], item[1]) for item in taken}:
        numbers = [item[3] for item in taken if item[:2] == (sender, priority)]
        assert numbers == sorted(numbers)
    assert (queue.count, queue.size, queue.waiting("a")) == (0, 0, 0)


@given(st.integers(0, 40), SIZES)
def test_while_all_have_work_each_priority_gets_its_share_of_every_stretch(skip: int, size: int) -> None:
    """The guarantee: of 15 units low gets 1, normal 2, high 4, critical 8, give or take one round."""
    queue: FairQueue[int] = FairQueue(Bounds(10_000, 2**40, 40_000, 2**40))
    for priority in range(4):
        for _ in range(400):
            queue.push("a", priority, priority, size)
    for _ in range(skip):
        queue.pop()
    frames = ROUND * 20
    got = Counter(queue.pop() for _ in range(frames))
    for priority, weight in enumerate(WEIGHTS):
        share = frames * weight / ROUND
        assert abs(got[priority] - share) <= weight + 1


def test_in_a_round_the_urgent_come_first() -> None:
    queue: FairQueue[int] = FairQueue()
    for priority in (3, 2, 1, 0):
        for _ in range(20):
            queue.push("a", priority, priority, 0)
    assert [queue.pop() for _ in range(ROUND)] == [0] * 8 + [1] * 4 + [2] * 2 + [3]


def test_whoever_has_nothing_waiting_passes_its_turn_on() -> None:
    queue: FairQueue[int] = FairQueue()
    for _ in range(50):
        queue.push("a", 3, 3, 0)
    assert [queue.pop() for _ in range(40)] == [3] * 40
    queue.push("a", 0, 0, 0)
    assert queue.pop() == 0


@given(st.lists(SIZES, min_size=1, max_size=6))
def test_senders_get_the_same_number_of_units_however_they_cut_them(sizes: list[int]) -> None:
    queue: FairQueue[str] = FairQueue(Bounds(10_000, 2**40, 40_000, 2**40))
    for _ in range(300):
        queue.push("flood", 2, "flood", 0)
    for size in sizes:
        queue.push("other", 2, "other", size)
    served = {"flood": 0, "other": 0}
    waiting = [units(size) for size in sizes]
    while waiting:
        who = queue.pop()
        assert who is not None
        served[who] += waiting.pop(0) if who == "other" else 1
        if waiting:
            assert served["flood"] - served["other"] <= max(map(units, sizes)) + 1
        if served["flood"] == 300:
            break


def test_a_late_sender_does_not_wait_behind_a_flood() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(1000):
        queue.push("flood", 2, "flood", 0)
    for _ in range(500):
        queue.pop()
    queue.push("late", 2, "late", 0)
    assert "late" in [queue.pop() for _ in range(2)]


def test_bounds_hold_for_each_sender_and_for_all() -> None:
    bounds = Bounds(sender_count=3, sender_bytes=1000, count=5, bytes=1500)
    queue: FairQueue[int] = FairQueue(bounds)
    assert [queue.push("a", 2, 1, 10) is not None for _ in range(4)] == [True, True, True, False]
    assert queue.push("b", 2, 1, 1001) is None
    assert queue.push("b", 2, 1, 1000) is not None
    assert queue.push("c", 2, 1, 1000) is None
    assert queue.push("c", 2, 1, 10) is not None
    assert queue.push("d", 2, 1, 10) is None
    queue.pop()
    assert queue.push("d", 2, 1, 10) is not None


def test_what_is_taken_back_again_and_again_leaves_nothing_behind() -> None:
    queue: FairQueue[int] = FairQueue()
    keeper = queue.push("a", 2, 0, 10)
    assert keeper is not None
    for number in range(10_000):
        ticket = queue.push("a", 2, number, 10)
        assert ticket is not None
        queue.discard(ticket, 2)
    assert len(keeper.line.tickets) < 200
    assert (queue.count, queue.size) == (1, 10)
    assert queue.pop() == 0
