"""What two fields of a manifest say that cannot both be meant is refused, by both their names."""

from __future__ import annotations

from typing import Any

import cel
import pytest
from build import plugin
from hypothesis import given
from hypothesis import strategies as st

from crucible.core.admission import violations_of
from crucible.core.versions import fits, is_empty
from crucible.model.crd import model_schema
from crucible.model.manifest import Backoff, Update

ROLLING = {"strategy": "rolling"}
TRIAL = {**ROLLING, "rollbackOnFailure": True}
TCP = {"tcp": {"port": 8080}}


def refusals(**spec: Any) -> list[str]:
    return [str(violation) for violation in violations_of(plugin(**spec))]


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        (
            {"recovery": {"backoff": {"initial": "30s", "max": "1s"}}},
            "spec.recovery.backoff",
            ["initial", "max"],
        ),
        ({"recovery": {"backoff": {"initial": "31s"}}}, "spec.recovery.backoff", ["initial", "max"]),
        ({"recovery": {"backoff": {"max": "50ms"}}}, "spec.recovery.backoff", ["initial", "max"]),
        ({"update": {**ROLLING, "maxSurge": "101%"}}, "spec.update.maxSurge", ["100% at most"]),
        ({"update": {**ROLLING, "maxUnavailable": "999%"}}, "spec.update.maxUnavailable", ["100% at most"]),
        ({"update": {**ROLLING, "maxSurge": "00"}}, "spec.update.maxSurge", ["write 2"]),
        (
            {"health": {"live": {"resource": {"memory": "65Mi"}}}, "resources": {"memory": "64Mi"}},
            "spec.health.live.resource.memory",
            ["65Mi", "spec.resources.memory", "64Mi"],
        ),
        (
            {"health": {"ready": {"resource": {"cpu": "501m"}}}},
            "spec.health.ready.resource.cpu",
            ["501m", "spec.resources.cpu", "500m"],
        ),
        (
            {"health": {"startup": {"resource": {"pids": 65}}}},
            "spec.health.startup.resource.pids",
            ["65", "spec.resources.pids", "64"],
        ),
        (
            {"update": TRIAL, "health": {"ready": {**TCP, "initial": "30s"}}},
            "spec.health.ready",
            ["30s", "spec.update.verify", "rollbackOnFailure"],
        ),
        (
            {"update": {**TRIAL, "verify": "5s"}, "health": {"startup": {**TCP, "initial": "6s"}}},
            "spec.health.startup",
            ["6s", "spec.update.verify", "5s"],
        ),
        (
            {"update": TRIAL, "health": {"ready": {**TCP, "successes": 4, "interval": "12s", "jitter": 0.1}}},
            "spec.health.ready",
            ["32s400ms", "30s"],
        ),
        (
            {"dependencies": [{"name": "base"}, {"name": "cache", "version": ">=3,<2"}]},
            "spec.dependencies[1].version",
            [">=3,<2", "cache"],
        ),
    ],
)
def test_two_fields_that_cannot_both_be_meant_are_refused(
    spec: dict[str, Any], field: str, words: list[str]
) -> None:
    (refusal,) = refusals(**spec)
    assert refusal.startswith(f"{field}: ")
    assert [word for word in words if word not in refusal] == []


@pytest.mark.parametrize(
    "spec",
    [
        {"recovery": {"backoff": {"initial": "30s", "max": "30s"}}},
        {"recovery": {"backoff": {"initial": "1m30s", "max": "90s"}}},
        {"update": {**ROLLING, "maxSurge": "100%", "maxUnavailable": "100%"}},
        {"health": {"live": {"resource": {"memory": "128Mi", "cpu": "500m", "pids": 64}}}},
        {"update": TRIAL, "health": {"ready": {**TCP, "initial": "29s"}}},
        {"update": ROLLING, "health": {"ready": {**TCP, "initial": "10m"}}},  # nobody takes it back
        {"health": {"startup": {**TCP, "timeout": "10s", "interval": "1s"}}},  # the next one waits for it
        {"dependencies": [{"name": "base", "version": ">=2,<3"}]},
    ],
)
def test_what_can_both_be_meant_is_admitted(spec: dict[str, Any]) -> None:
    assert refusals(**spec) == []


def by_the_api_server(part: type[Backoff | Update], written: dict[str, Any]) -> list[str]:
    """Return what the CRD's rules say to a part, with the defaults that the API server puts in first."""
    schema = model_schema(part)
    defaults = {name: field["default"] for name, field in schema["properties"].items() if "default" in field}
    scope = {"self": {**defaults, **written}}
    return [
        rule["message"]
        for rule in schema["x-kubernetes-validations"]
        if not cel.evaluate(rule["rule"], scope)
    ]


@pytest.mark.parametrize("initial", ["10ms", "1s", "1m", "1h"])
@pytest.mark.parametrize("longest", ["10ms", "1000ms", "60s", "1h1ms", None])
def test_backoff_is_judged_alike_here_and_by_the_api_server(initial: str, longest: str | None) -> None:
    written = {"initial": initial} | ({"max": longest} if longest else {})
    here = refusals(recovery={"backoff": written})
    there = by_the_api_server(Backoff, written)
    assert [refusal.removeprefix("spec.recovery.backoff: ") for refusal in here] == there


@pytest.mark.parametrize("strategy", ["rolling", "handover"])
@pytest.mark.parametrize("surge", [0, "0", "0%", 1, "1%", None])
@pytest.mark.parametrize("unavailable", [0, "0", "0%", 1, "10%", None])
def test_room_for_updates_is_judged_alike_here_and_by_the_api_server(
    strategy: str, surge: int | str | None, unavailable: int | str | None
) -> None:
    given = {"strategy": strategy, "maxSurge": surge, "maxUnavailable": unavailable}
    written = {name: value for name, value in given.items() if value is not None}
    here = refusals(update=written, capabilities={"bus": {}}, health={"ready": {"ping": {}}})
    there = by_the_api_server(Update, written)
    assert bool(here) == bool(there)
    assert {refusal.removeprefix("spec.update: ") for refusal in here} <= set(there)


@pytest.mark.parametrize(
    "wanted",
    [
        ">=3,<2",
        ">2,<2.0.1,!=2.0.0",
        "1.2.3,!=1.2.3",
        "^1,^2",
        "~1.4,>=1.5",
        "<0.0.0",
        ">=2.0.0-rc.2,<2.0.0-rc.1",
        "=1,=2",
        ">=1.0.0,<1.0.2,!=1.0.0,!=1.0.1",
    ],
)
def test_a_range_that_no_version_is_in_is_empty(wanted: str) -> None:
    assert is_empty(wanted)


@pytest.mark.parametrize(
    "wanted", ["*", "<0.0.0-b", ">1.0.0-a,<1.0.0-b", ">=1,!=1.0.0,!=1.0.1", ">2.0.0,<2.0.2", "1", "^0.0.3"]
)
def test_a_range_that_a_version_is_in_is_not_empty(wanted: str) -> None:
    assert not is_empty(wanted)


numbers = st.integers(0, 2)
bounds = st.tuples(
    st.sampled_from(["^", "~", "==", "=", "!=", ">=", "<=", ">", "<", ""]),
    st.one_of(
        st.builds(str, numbers),
        st.builds("{}.{}".format, numbers, numbers),
        st.builds("{}.{}.{}".format, numbers, numbers, numbers),
        st.builds("{}.{}.{}-{}".format, numbers, numbers, numbers, st.sampled_from(["a", "b", "1"])),
    ),
).map("".join)
GRID = [
    f"{major}.{minor}.{patch}{pre}"
    for major in range(4)
    for minor in range(4)
    for patch in range(7)
    for pre in ("", "-a", "-b", "-1", "-a.0", "-b.0", "-0", "-c")
]


@given(st.lists(bounds, min_size=1, max_size=3).map(",".join))
def test_it_is_empty_exactly_when_no_version_fits(wanted: str) -> None:
    assert is_empty(wanted) is not any(fits(version, wanted) for version in GRID)
