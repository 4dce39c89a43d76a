"""The index of who needs whom."""

from __future__ import annotations

from typing import Any

from build import plugin

from crucible.control.neighbours import Neighbours, neighbour_of


def made(name: str, *needs: str, namespace: str = "default", **more: Any) -> dict[str, Any]:
    found = plugin(dependencies=[{"name": need} for need in needs])
    return {**found, **more, "metadata": {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}"}}


READY = {"status": {"conditions": [{"type": "Ready", "status": "True", "message": "1 of 1"}], "replicas": 1}}


def test_those_who_need_one_hear_of_what_is_new_and_of_nothing_else() -> None:
    index = Neighbours()
    index.see(made("web", "base"))
    assert index.see(made("base")) == {"default-web"}
    assert index.see(made("base")) == set()
    assert index.see(made("base", **READY)) == {"default-web"}
    assert index.lose("default-base") == {"default-web"}
    assert index.lose("default-base") == set()


def test_what_is_around_one_reaches_as_far_as_it_is_needed() -> None:
    index = Neighbours()
    for one in (made("web", "base"), made("base", "deep", "gone"), made("deep"), made("other", "web")):
        index.see(one)
    around = index.around("default-web")
    assert sorted(around.needed) == ["base", "deep"]
    assert around.needed["base"].needs == ("deep", "gone")
    assert [each.name for each in around.needed_by] == ["other"]
    assert index.around("unknown").needed == {}


def test_other_namespaces_are_other_worlds() -> None:
    index = Neighbours()
    index.see(made("web", "base"))
    assert index.see(made("base", namespace="elsewhere")) == set()
    assert index.around("default-web").needed == {}


def test_one_that_is_needed_no_more_is_told_too() -> None:
    index = Neighbours()
    index.see(made("base"))
    index.see(made("web", "base"))
    assert index.see(made("web")) == {"default-base"}
    assert index.around("default-base").needed_by == ()


def test_one_of_the_same_name_takes_the_place_of_the_one_before() -> None:
    index = Neighbours()
    index.see(made("base"))
    again = made("base")
    again["metadata"]["uid"] = "new"
    index.see(again)
    assert index.lose("default-base") == set()
    index.see(made("web", "base"))
    assert sorted(index.around("default-web").needed) == ["base"]


def test_rubbish_is_read_as_far_as_it_goes() -> None:
    for spec in ({}, {"dependencies": "x"}, {"dependencies": ["x", 1, {"name": "y"}]}):
        found = neighbour_of({**made("web"), "spec": spec, "status": None})
        assert (found.version, found.ready) == ("", False)
