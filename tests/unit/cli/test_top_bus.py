"""Rates on the bus, from two looks at what was counted."""

from crucible.cli.top_bus import together, with_rates


def look(plugin: str, calls: int) -> dict[str, object]:
    return {
        "namespace": "default",
        "plugin": plugin,
        "calls": calls,
        "answered": 0,
        "published": 0,
        "delivered": 7,
    }


def test_what_was_counted_between_two_looks_makes_a_rate() -> None:
    (found,) = with_rates([look("a", 10)], [look("a", 40)], 2.0)
    assert (found["callsPerSecond"], found["deliveredPerSecond"]) == (15.0, 0.0)


def test_who_came_between_and_a_broker_that_began_anew_count_from_nothing() -> None:
    found = with_rates([look("a", 1000)], [look("a", 4), look("b", 6)], 2.0)
    assert [one["callsPerSecond"] for one in found] == [2.0, 3.0]


def test_what_several_brokers_tell_of_a_plugin_is_taken_together() -> None:
    def told(plugin: str, calls: int, **faults: int) -> dict[str, object]:
        return {"namespace": "a", "plugin": plugin, "calls": calls, "callsPerSecond": 0.5, "faults": faults}

    found = together([[told("one", 1, refused=2)], [told("one", 2, refused=1, malformed=4), told("two", 7)]])
    assert found == [
        {
            "namespace": "a",
            "plugin": "one",
            "calls": 3,
            "callsPerSecond": 1.0,
            "faults": {"refused": 3, "malformed": 4},
        },
        told("two", 7),
    ]
