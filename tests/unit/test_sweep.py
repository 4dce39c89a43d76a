from __future__ import annotations

from build import DIGEST, instance, plugin

from crucible.sweep import orphans, running_sources, wanted_sources

REPORTED = plugin() | {"status": {"source": {"digest": DIGEST, "resolvedFor": "inline 1"}}}


def test_only_instances_without_a_plugin_are_orphans() -> None:
    mine, stray = instance(1), instance(2, plugin_uid="gone")
    assert orphans({plugin()["metadata"]["uid"]}, [mine, stray]) == (stray,)
    assert orphans(set(), [mine, stray]) == (mine, stray)


def test_sources_are_wanted_by_plugins_and_by_what_runs() -> None:
    assert wanted_sources([REPORTED]) == {DIGEST}
    assert running_sources([instance(source="sha256:old")]) == {"sha256:old"}
    assert wanted_sources([plugin()]) == frozenset()
