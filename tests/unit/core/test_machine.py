"""Drives ``decide`` through random lives of a Plugin and holds what must hold in every one of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from build import capabilities, plugin
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from life import Life

from crucible.core.admission import admit
from crucible.errors import Violation
from crucible.model.enforcement import Level
from crucible.model.status import SourceReport

if TYPE_CHECKING:
    from crucible.model.manifest import PluginSpec

READY = {"http": {"port": 8080}, "interval": "1s", "failures": 2, "successes": 2}
LIVE = {"exec": {"command": ["true"]}, "interval": "1s", "failures": 2}
ROLLING = {"strategy": "rolling", "verify": "5s"}
HANDOVER = {"strategy": "handover", "verify": "5s"}
HOOK = {"preStop": {"command": ["flush"], "timeout": "7s"}}
LISTENS: dict[str, Any] = {"capabilities": {"network": {"listen": [8080]}}, "health": {"ready": READY}}
RECREATED: tuple[dict[str, Any], ...] = (
    {},
    {"replicas": 2},
    {"replicas": 0},
    {"config": {"a": 1}},
    {"suspend": True},
    {"recovery": {"strategy": ["restart"]}},
    {"recovery": {"maxRestarts": 0}},
    {"recovery": {"strategy": ["restart", "rollback", "quarantine"], "maxRestarts": 1}, "config": {"a": 4}},
    {"update": {"rollbackOnFailure": True}, "config": {"a": 5}, "revisionHistoryLimit": 1},
    {"recovery": {"strategy": ["restart", "recreate", "quarantine"], "maxRestarts": 1}, "config": {"a": 6}},
    {"recovery": {"strategy": ["recreate"]}, "config": {"a": 7}, "replicas": 2},
    {"sandbox": {"allowDegraded": ["memory"]}},
    {"stopGrace": "0s"},
    {"health": {"ready": READY, "live": LIVE}},
    {"configDelivery": "signal", "config": {"a": 20}},
    {"lifecycle": {"drain": "20s"}, "capabilities": {"bus": {}}, "config": {"a": 24}},
    {"configDelivery": "signal", "config": {"a": 21}},
    {"dependencies": [{"name": "base"}, {"name": "more", "optional": True}]},
    {"health": {"startup": {"tcp": {"port": 1}, "failures": 2}, "ready": READY}, "replicas": 2},
)
ROLLED: tuple[dict[str, Any], ...] = (
    {"update": ROLLING},
    {"update": ROLLING, "replicas": 2, "config": {"a": 0}},
    {"update": {**ROLLING, "maxSurge": 0, "maxUnavailable": 1}, "replicas": 2, "config": {"a": 0}},
    {"update": {**ROLLING, "maxSurge": 2}, "replicas": 3, "config": {"a": 0}, "recovery": {"maxRestarts": 0}},
    {"update": ROLLING, "config": {"a": 1}},
    {"update": ROLLING, "config": {"a": 2}, "replicas": 3},
    {"update": ROLLING, "config": {"a": 3}, "replicas": 2, "recovery": {"maxRestarts": 1}},
    {"update": {"strategy": "rolling", "verify": "0s"}, "config": {"a": 4}, "replicas": 2},
    {"update": ROLLING, "config": {"a": 5}, "replicas": 2, "health": {"ready": READY, "live": LIVE}},
    {"update": {**ROLLING, "rollbackOnFailure": True}, "config": {"a": 8}, "health": {"ready": READY}},
    {"update": {**ROLLING, "rollbackOnFailure": True}, "config": {"a": 9}, "replicas": 2},
    {"update": ROLLING, "config": {"a": 7}, "dependencies": [{"name": "base", "version": "1"}]},
    {"update": ROLLING, "configDelivery": "file", "config": {"a": 22}, "replicas": 2},
    {"update": ROLLING, "configDelivery": "file", "config": {"a": 23}, "replicas": 2},
    {
        "update": ROLLING,
        "lifecycle": {"drain": "3s"},
        "capabilities": {"bus": {}},
        "config": {"a": 25},
        "replicas": 2,
    },
    {"update": HANDOVER, **LISTENS, "config": {"a": 26}, "replicas": 2},
    {"update": ROLLING, "lifecycle": HOOK, "config": {"a": 29}, "replicas": 2},
    {"lifecycle": HOOK, "config": {"a": 30}},
    {"update": {**HANDOVER, "maxSurge": 2}, **LISTENS, "config": {"a": 27}, "replicas": 3},
    {
        "update": HANDOVER,
        "capabilities": {"bus": {}},
        "health": {"ready": READY},
        "lifecycle": {"drain": "4s"},
        "config": {"a": 28},
    },
    {"update": {**ROLLING, "maxSurge": 2}, "config": {"a": 10}, "replicas": 4},
    {"update": {**ROLLING, "maxSurge": 0, "maxUnavailable": "50%"}, "config": {"a": 11}, "replicas": 4},
    {"update": {**ROLLING, "maxSurge": "25%", "maxUnavailable": 1}, "config": {"a": 12}, "replicas": 5},
    {"update": {**ROLLING, "maxSurge": "0%", "maxUnavailable": "20%"}, "config": {"a": 13}, "replicas": 3},
    {
        "update": {**ROLLING, "maxSurge": 1, "maxUnavailable": 2},
        "config": {"a": 14},
        "replicas": 4,
        "health": {"ready": READY, "live": LIVE},
    },
    {"update": ROLLING, "config": {"a": 6}, "health": {"startup": {"exec": {"command": ["x"]}}}},
)
ANY = tuple(admit(plugin(**fields)) for fields in (*RECREATED, *ROLLED))
ROLLING_ONLY = tuple(admit(plugin(**fields)) for fields in ROLLED)


class PluginLife(Life):
    """A world in which a plugin, its runtime, its author and its controller all misbehave."""

    @initialize(spec=st.sampled_from(ANY))
    def apply_first(self, spec: PluginSpec) -> None:
        self.change_to(spec)

    @rule(spec=st.sampled_from(ANY))
    def apply(self, spec: PluginSpec) -> None:
        self.change_to(spec)

    @rule()
    def apply_what_is_refused(self) -> None:
        self.spec = (Violation("spec", "is wrong"),)

    @rule(level=st.sampled_from(Level))
    def weaken_the_host(self, level: Level) -> None:
        self.capabilities = capabilities(MEMORY=level)

    @rule(lost=st.booleans())
    def lose_or_find_the_source(self, *, lost: bool) -> None:
        self.source = (
            Violation("spec.source", "is gone")
            if lost
            else SourceReport(digest="sha256:0", resolved_for="inline")
        )

    @precondition(lambda self: not self.identity.deleting)
    @rule()
    def delete(self) -> None:
        self.identity = replace(self.identity, deleting=True)


class RollingLife(Life):
    """Nothing but updates, one into the other, of plugins of which some crash."""

    @initialize(spec=st.sampled_from(ROLLING_ONLY))
    def apply_first(self, spec: PluginSpec) -> None:
        self.change_to(spec)
        self.settle()

    @rule(spec=st.sampled_from(ROLLING_ONLY))
    def apply(self, spec: PluginSpec) -> None:
        self.change_to(spec)

    @rule(turns=st.integers(min_value=1, max_value=6))
    def come_up_and_go_on(self, turns: int) -> None:
        for _ in range(turns):
            self.supervise(fails=False)
            self.end_what_was_asked_to()
            self.now += 1.0


PluginLife.TestCase.settings = settings(stateful_step_count=30, deadline=None)
TestPluginLife = PluginLife.TestCase
RollingLife.TestCase.settings = settings(stateful_step_count=30, deadline=None)
TestRollingLife = RollingLife.TestCase
