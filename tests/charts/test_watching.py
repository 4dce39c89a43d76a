"""Alerts and the dashboard: they ask for figures that there are."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from release import EVERYTHING, REPOSITORY, Object, of_kind

from crucible.model.status import Phase

if TYPE_CHECKING:
    from release import Release

# Of the cluster's own exporters: the kubelet and kube-state-metrics.
OTHERS = {
    "container_memory_working_set_bytes",
    "kube_pod_container_resource_limits",
    "kube_pod_container_status_restarts_total",
    "up",
}
# Of a control plane of one machine, which no chart watches.
ELSEWHERE = {"crucible_lines_shut"}
PHASES = re.compile(r'phase=~?"([\w|]+)"')
METRIC = re.compile(r"\b(\w+)\{")


def told() -> set[str]:
    """Return the names of the operator's own figures."""
    source = (REPOSITORY / "controller/crucible/figures.py").read_text()
    return set(re.findall(r'"(crucible_\w+)"', source))


def rules(release: Release) -> list[Object]:
    (found,) = of_kind(release.objects(EVERYTHING), "PrometheusRule")
    return [rule for group in found["spec"]["groups"] for rule in group["rules"]]


def dashboard(release: Release) -> Object:
    (found,) = of_kind(release.objects(EVERYTHING), "ConfigMap")
    return dict(json.loads(found["data"]["crucible.json"]))


def test_every_alert_asks_for_figures_that_are_told(release: Release) -> None:
    for rule in rules(release):
        asked = set(METRIC.findall(rule["expr"]))
        assert asked
        assert asked <= told() | OTHERS, rule["alert"]


def test_every_alert_asks_for_phases_that_there_are(release: Release) -> None:
    found = "|".join(phase for rule in rules(release) for phase in PHASES.findall(rule["expr"]))
    asked = set(found.split("|"))
    assert asked
    assert asked <= {phase.value for phase in Phase}


def test_an_alert_looks_at_this_release_alone(release: Release) -> None:
    for rule in rules(release):
        selectors = re.findall(r"\{([^}]*)\}", rule["expr"])
        assert all('namespace="crucible-system"' in selector for selector in selectors)
    (service,) = of_kind(release.objects(EVERYTHING), "Service")
    assert f'job="{service["metadata"]["name"]}"' in rules(release)[0]["expr"]


def test_the_dashboard_asks_for_figures_that_are_told(release: Release) -> None:
    panels = dashboard(release)["panels"]
    for panel in panels:
        for target in panel["targets"]:
            assert set(METRIC.findall(target["expr"])) <= told() | OTHERS
    assert {name for panel in panels for name in METRIC.findall(panel["targets"][0]["expr"])} >= (
        told() - ELSEWHERE
    )


def test_panels_stand_beside_each_other(release: Release) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(release)["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells


def test_a_summary_keeps_its_figure_for_prometheus(release: Release) -> None:
    summaries = [rule["annotations"]["summary"] for rule in rules(release)]
    assert any("{{ $value }}" in summary for summary in summaries)
