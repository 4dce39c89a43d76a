"""A Plugin that comes in again is checked again only where it says something else."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from build import plugin

from crucible.gathering import read_plugin
from crucible.model.manifest import PluginSpec

PLUGIN = plugin()


def again(**changes: Any) -> dict[str, Any]:
    """Return the Plugin as it comes in again, with some of its metadata changed."""
    made = deepcopy(PLUGIN)
    made["metadata"] |= {"resourceVersion": "8", **changes}
    return made


def test_what_comes_back_with_another_status_is_not_checked_again() -> None:
    first = read_plugin(PLUGIN)
    back = again(finalizers=["crucible.dev/instances"])
    back["status"] = {"phase": "Running"}
    read = read_plugin(back, first)
    assert read.spec is first.spec
    assert read.plugin is back
    assert (read.identity.resource_version, read.identity.finalizers) == ("8", ("crucible.dev/instances",))


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"labels": {"crucible.dev/x": "y"}}, "labels"),
        ({"annotations": {"crucible.dev/x": "y"}}, "annotations"),
    ],
)
def test_what_metadata_may_not_say_is_seen_whenever_it_comes(where: dict[str, Any], said: str) -> None:
    first = read_plugin(PLUGIN)
    bad = read_plugin(again(**where), first)
    assert isinstance(bad.spec, tuple)
    assert [violation.field for violation in bad.spec] == [f"metadata.{said}"]
    assert isinstance(read_plugin(again(), bad).spec, PluginSpec)


def test_another_spec_is_read() -> None:
    first = read_plugin(PLUGIN)
    changed = again(generation=2)
    changed["spec"]["replicas"] = 3
    read = read_plugin(changed, first)
    assert isinstance(read.spec, PluginSpec)
    assert read.spec.replicas == 3
    wrong = again(generation=3)
    wrong["spec"]["replicas"] = "many"
    assert isinstance(read_plugin(wrong, read).spec, tuple)
