from __future__ import annotations

from dataclasses import replace

from build import identity, plugin

from crucible.core.admission import admit
from crucible.core.render import render
from crucible.model.status import SourceReport
from crucible.model.workload import Limits, Workload

SOURCE = SourceReport(digest="sha256:1", resolved_for="")


def test_every_field_of_the_manifest_reaches_the_workload_in_plain_units() -> None:
    spec = admit(
        plugin(
            entrypoint=["main.py", "--fast"],
            env=[{"name": "B", "value": "2"}, {"name": "A", "value": ""}],
            config={"b": 1, "a": [2]},
            resources={"cpu": "250m", "memory": "64Mi", "pids": 9, "disk": "2Mi", "openFiles": 32},
            stopGrace="1500ms",
        )
    )
    assert render(identity(restart="now"), spec, SOURCE) == Workload(
        namespace="default",
        plugin="echo",
        plugin_uid=identity().uid,
        type="python",
        entrypoint=("main.py", "--fast"),
        env=(("B", "2"), ("A", "")),
        config='{"a": [2], "b": 1}',
        source="sha256:1",
        limits=Limits(cpu=250, memory=64 * 2**20, pids=9, disk=2 * 2**20, open_files=32),
        isolation="process",
        grace=1.5,
        restart="now",
    )


def test_the_order_of_config_keys_is_no_change() -> None:
    one = render(identity(), admit(plugin(config={"a": 1, "b": 2})), SOURCE)
    other = render(identity(), admit(plugin(config={"b": 2, "a": 1})), SOURCE)
    assert one.revision == other.revision
    assert replace(one, config="{}").revision != one.revision
