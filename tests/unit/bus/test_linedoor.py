"""The door by which other machines come directly: where it is, and when it is shut."""

from __future__ import annotations

import pytest

from crucible.bus.linedoor import LineDoor
from crucible.errors import Unavailable
from crucible.model.backbone import LINES, Joining, Meeting


def joining(listen: str, port: int, *, met: bool = True) -> Joining:
    meeting = Meeting("alpha", "", port) if met else None
    return Joining("alpha", "10.0.0.1", 4222, "ca", "certificate", "key", (), meeting, listen)


def test_it_is_shut_until_the_settings_say_where_and_shut_again_when_they_do_not() -> None:
    door = LineDoor()
    assert (door.doorways(), door.listeners()) == ((), ())
    assert door.move(joining("10.0.0.1", 9))
    (first,) = door.doorways()
    assert first.plugin == LINES
    assert not door.move(joining("10.0.0.1", 9))  # the same: the broker keeps what it has
    assert door.move(joining("10.0.0.1", 10))
    (second,) = door.doorways()
    assert second.key != first.key  # so the broker lets go of the one and is handed the other
    for shut in (joining("", 10), joining("10.0.0.1", 10, met=False), None):
        door.move(joining("10.0.0.1", 10))
        assert door.move(shut)
        assert door.doorways() == ()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_is_bound_at_its_address_alone_and_one_that_is_taken_is_said(host: str) -> None:
    door = LineDoor()
    door._at = (host, 0)
    (listener,) = door.listeners()
    found, port = listener.getsockname()[:2]
    assert found == host
    door.move(joining(host, port))
    assert door.problem == ""
    with pytest.raises(Unavailable, match="lines in the backbone's settings"):
        door.listeners()  # somebody has it
    assert "cannot come directly" in door.problem
    listener.close()
    (again,) = door.listeners()
    assert door.problem == ""
    again.close()
