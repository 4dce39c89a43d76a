"""What a manifest grants on the bus: exactly what is written, and nothing where nothing is."""

import itertools
from typing import Any

import pytest
from build import plugin

from crucible.core.admission import admit
from crucible.core.bus import grants_of, is_on_bus, may_call, may_publish, may_subscribe, member_of
from crucible.errors import InvalidManifest
from crucible.model.bus import Grants, Member
from crucible.model.manifest import PluginSpec
from crucible.model.plugin import Identity
from crucible.model.status import Condition, PluginStatus

IDENTITY = Identity("here", "word-count", "uid-1", 3)


def spec(store: dict[str, str] | None = None, **bus: list[str]) -> PluginSpec:
    capabilities: dict[str, Any] = {"bus": bus}
    if store is not None:
        capabilities["store"] = store
    return admit(plugin(capabilities=capabilities))


def test_the_table_of_a_manifest() -> None:
    store = {"size": "16Mi", "onDelete": "remove"}
    manifest = spec(store, publish=["b", "a.*", "b"], subscribe=["notes.>"], call=["z.m", "a.*"])
    asleep = PluginStatus(
        conditions=(
            Condition(
                type="Ready",
                status="False",
                reason="Suspended",
                message="set spec.suspend to false",
                last_transition_time=1.0,
            ),
        )
    )
    assert member_of(IDENTITY, manifest, asleep).to_json() == {
        "namespace": "here",
        "plugin": "word-count",
        "uid": "uid-1",
        "grants": {
            "publish": ("a.*", "b"),
            "subscribe": ("notes.>",),
            "call": ("a.*", "z.m"),
            "store": 16 * 2**20,
            "keep_store": False,
            "everything": False,
        },
        "state": "Suspended: set spec.suspend to false",
    }


def test_who_is_refused_or_takes_no_part_may_do_nothing_and_says_why() -> None:
    assert member_of(IDENTITY, None, PluginStatus()).grants == Grants()
    apart = member_of(IDENTITY, admit(plugin()), PluginStatus())
    assert apart.grants == Grants()
    assert "write spec.capabilities.bus: {}" in apart.state
    assert not is_on_bus(admit(plugin()))
    assert not is_on_bus(admit(plugin(capabilities={})))
    assert is_on_bus(admit(plugin(capabilities={"bus": {}})))
    assert is_on_bus(admit(plugin(capabilities={"store": {"size": "1Mi"}})))
    assert is_on_bus(admit(plugin(health={"live": {"ping": {}}})))
    assert not is_on_bus(admit(plugin(health={"live": {"process": {}}})))


def test_a_member_survives_its_journey_as_json() -> None:
    member = Member("here", "a", "u", Grants(("x",), ("y.>",), ("b.c",), 7), "why")
    assert Member.from_json(member.to_json()) == member
    with pytest.raises(KeyError):
        Member.from_json({"namespace": "here"})


def test_nothing_written_is_nothing_granted() -> None:
    grants = grants_of(spec())
    assert grants.nothing
    assert not may_call(grants, "a", "b")
    assert not may_publish(grants, "a")
    assert not may_subscribe(grants, "a")


def test_the_matrix_allows_exactly_what_is_granted() -> None:
    names = ["a", "b", "a-b"]
    methods = ["m", "n", "*"]
    for granted in (*itertools.product(names, methods), None):
        grants = Grants(call=() if granted is None else (".".join(granted),))
        for name, method in itertools.product(names, ["m", "n"]):
            expected = granted is not None and granted[0] == name and granted[1] in ("*", method)
            assert may_call(grants, name, method) == expected, (granted, name, method)


def test_the_controller_alone_publishes_its_subjects() -> None:
    for grants in (Grants(publish=(">", "*.events")), Grants(everything=True)):
        assert not may_publish(grants, "crucible.events")
        assert may_publish(grants, "crucibles.events")
    assert may_subscribe(Grants(subscribe=("crucible.events.>",)), "crucible.events.a.b")


def test_what_is_no_pattern_is_refused_by_field() -> None:
    bus = {
        "publish": ["a b", "crucible.x", "ok.*"],
        "subscribe": ["", "a.>.b", "crucible.events.>"],
        "call": ["a", "*.m", "A.m", "a.m.n", "a.", "$host.open", "$store.get", "a-.m", "a.*"],
    }
    with pytest.raises(InvalidManifest) as refusal:
        admit(plugin(capabilities={"bus": bus}))
    fields = [violation.field for violation in refusal.value.violations]
    assert [field.removeprefix("spec.capabilities.bus.") for field in fields] == [
        "publish[0]",
        "subscribe[0]",
        "subscribe[1]",
        "publish[1]",
        "call[0]",
        "call[1]",
        "call[2]",
        "call[3]",
        "call[4]",
        "call[6]",
        "call[7]",
    ]
