"""What people are told when a companion does not run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crucible.doorkeeper import Doorkeeper, TellingVoice
from crucible.model.bus import Grants, Member
from crucible.model.decision import Event
from crucible.model.door import Door, Doorway
from crucible.model.plugin import Identity
from crucible.model.workload import Slot
from crucible.runtimes.fake import FakeHost, FakeRuntime
from crucible.settings import Places

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_while_the_broker_does_not_answer_nobody_is_taken_to_be_done(tmp_path: Path) -> None:
    doors = Doorkeeper(FakeRuntime(FakeHost()), Places(tmp_path), "plane")
    assert await doors.open_calls("uid", [Slot(0, 1), Slot(1, 4)]) == {1: None, 4: None}


def way(door: Door, plugin: str) -> Doorway:
    return Doorway(door, "default", plugin, plugin, "0-1")


async def test_a_plugin_is_told_of_the_companion_it_needs_and_of_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = FakeRuntime(FakeHost())
    ways = (way(Door.EGRESS, "out"), way(Door.BUS, "talks"), way(Door.EGRESS, "both"), way(Door.BUS, "both"))
    monkeypatch.setattr(
        runtime, "doorways", lambda uid=None: tuple(one for one in ways if uid in {None, one.plugin_uid})
    )
    doors = Doorkeeper(runtime, Places(tmp_path), "plane")
    rung: list[str] = []
    told: list[tuple[str, Event]] = []
    doors._ring, doors._say = rung.append, lambda uid, event: told.append((uid, event))
    doors._egress._note_trouble("no such luck")
    assert rung == ["both", "out"]
    assert [(uid, event.type, event.reason) for uid, event in told] == [
        ("both", "Warning", "CompanionFailed"),
        ("out", "Warning", "CompanionFailed"),
    ]
    words = f"the egress proxy does not run as it should: no such luck; its log is {tmp_path}/egress/log"
    assert doors.lacks("out") == doors.lacks("both") == (words,)
    assert doors.lacks("talks") == ()
    doors._egress._note_trouble("no such luck")
    assert len(told) == 2
    doors._egress._note_trouble("")
    assert doors.lacks("out") == ()
    assert [event.reason for _, event in told[2:]] == ["CompanionServes"] * 2
    assert await doors.traffic() == {}


async def test_what_the_broker_says_of_a_plugin_reaches_its_people_and_its_loop(tmp_path: Path) -> None:
    doors = Doorkeeper(FakeRuntime(FakeHost()), Places(tmp_path), "plane")
    rung: list[str] = []
    told: list[tuple[str, Event]] = []
    doors._ring, doors._say = rung.append, lambda uid, event: told.append((uid, event))
    for name in ("noisy", "other"):
        doors.liaison.know(Member("here", name, f"uid-{name}", Grants()))
    whose = {"namespace": "here", "plugin": "noisy"}
    doors._hear({"refused": "publish notes.saved", **whose})
    ((uid, event),) = told
    assert (uid, event.type, event.reason) == ("uid-noisy", "Warning", "BusDenied")
    assert "to allow it, add 'notes.saved' to spec.capabilities.bus.publish" in event.message
    doors._hear({"notices": ["sends too much (3 times)"], **whose})
    assert rung == ["uid-noisy"]
    assert doors.notices("uid-noisy") == ("sends too much (3 times)",)
    assert doors.notices("uid-other") == ()


class Teller:
    """Keeps what it is told, whoever tells it."""

    def __init__(self) -> None:
        self.told: list[Event] = []

    def publish(self, identity: Identity, event: Event, now: float) -> None:
        assert (identity.name, now) == ("noisy", 7.0)
        self.told.append(event)

    async def tell(self, identity: Identity, event: Event) -> None:
        assert identity.name == "noisy"
        self.told.append(event)


async def test_an_event_is_recorded_and_published_alike() -> None:
    voice, bus = Teller(), Teller()
    event = Event("Normal", "Started", "noisy-0-1 started")
    telling = TellingVoice(voice, bus, lambda: 7.0)  # type: ignore[arg-type]
    await telling.tell(Identity("here", "noisy", "uid-noisy", 1), event)
    assert voice.told == bus.told == [event]
