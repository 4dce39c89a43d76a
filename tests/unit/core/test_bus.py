"""What a manifest grants on the bus: exactly what is written, and nothing where nothing is."""

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pytest

from crucible.core.bus import grants_of, may_call, may_publish, may_subscribe, member_of, violations
from crucible.model.bus import Grants, Member
from crucible.model.manifest import BusCapability, PluginSpec, StoreCapability
from crucible.model.plugin import Identity


def spec(store: str | None = None, **bus: tuple[str, ...]) -> PluginSpec:
    """Return the two parts of a spec that are looked at."""
    capabilities = SimpleNamespace(
        bus=BusCapability(**cast("Any", bus)),
        store=None if store is None else StoreCapability(size=cast("Any", store)),
    )
    return cast("PluginSpec", SimpleNamespace(capabilities=capabilities))


def test_the_table_of_a_manifest() -> None:
    manifest = spec("16Mi", publish=("b", "a.*", "b"), subscribe=("notes.>",), call=("z.m", "a.*"))
    identity = Identity("here", "word-count", "uid-1", 3)
    assert member_of(identity, manifest, "is suspended").to_json() == {
        "namespace": "here",
        "plugin": "word-count",
        "uid": "uid-1",
        "grants": {
            "publish": ("a.*", "b"),
            "subscribe": ("notes.>",),
            "call": ("a.*", "z.m"),
            "store": 16 * 2**20,
            "keep_store": True,
            "everything": False,
        },
        "state": "is suspended",
    }


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
        for plugin, method in itertools.product(names, ["m", "n"]):
            expected = granted is not None and granted[0] == plugin and granted[1] in ("*", method)
            assert may_call(grants, plugin, method) == expected, (granted, plugin, method)


def test_the_controller_alone_publishes_its_subjects() -> None:
    for grants in (Grants(publish=(">", "*.events")), Grants(everything=True)):
        assert not may_publish(grants, "crucible.events")
        assert may_publish(grants, "crucibles.events")
    assert may_subscribe(Grants(subscribe=("crucible.events.>",)), "crucible.events.a.b")


def test_what_is_no_pattern_is_refused_by_field() -> None:
    wrong = spec(
        publish=("a b", "crucible.x", "ok.*"),
        subscribe=("", "a.>.b", "crucible.events.>"),
        call=("a", "*.m", "A.m", "a.m.n", "a.", "$host.open", "$store.get", "a-.m", "a.*"),
    )
    assert [violation.field.removeprefix("spec.capabilities.bus.") for violation in violations(wrong)] == [
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
