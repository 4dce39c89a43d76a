"""Drives ``decide`` through random lives of a Plugin and holds what must hold in every one of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from build import UID, capabilities, identity, plugin
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from crucible.core.admission import admit
from crucible.core.decide import decide
from crucible.core.replica import instance_name
from crucible.errors import Violation
from crucible.model.decision import Action, Decision, Hold, Kill, Remove, Start, Stop
from crucible.model.enforcement import Level
from crucible.model.instance import Exit, Instance, State
from crucible.model.names import FINALIZER
from crucible.model.status import PluginStatus, SourceReport
from crucible.model.world import World

if TYPE_CHECKING:
    from crucible.model.manifest import PluginSpec
    from crucible.model.workload import Slot

SPECS: tuple[dict[str, Any], ...] = (
    {},
    {"replicas": 2},
    {"replicas": 0},
    {"config": {"a": 1}},
    {"suspend": True},
    {"recovery": {"strategy": ["restart"]}},
    {"recovery": {"maxRestarts": 0}},
    {"sandbox": {"allowDegraded": ["memory"]}},
    {"stopGrace": "0s"},
)
ADMITTED = tuple(admit(plugin(**fields)) for fields in SPECS)
STEPS_TO_SETTLE = 40


class PluginLife(RuleBasedStateMachine):
    """A world in which a plugin, its runtime, its author and its controller all misbehave."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.instances: dict[Slot, Instance] = {}
        self.status = PluginStatus()
        self.identity = identity(finalizers=())
        self.spec: Any = ADMITTED[0]
        self.source: Any = SourceReport(digest="sha256:0", resolved_for="inline")
        self.capabilities = capabilities()
        self.released = False
        self.used: set[Slot] = set()

    @initialize(spec=st.sampled_from(ADMITTED))
    def apply_first(self, spec: PluginSpec) -> None:
        self.spec = spec

    @rule(spec=st.sampled_from(ADMITTED))
    def apply(self, spec: PluginSpec) -> None:
        self.spec = spec
        self.identity = replace(self.identity, generation=self.identity.generation + 1)

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

    @rule(token=st.integers(min_value=1, max_value=3))
    def ask_for_a_restart(self, token: int) -> None:
        self.identity = replace(self.identity, restart=str(token))

    @precondition(lambda self: not self.identity.deleting)
    @rule()
    def delete(self) -> None:
        self.identity = replace(self.identity, deleting=True)

    @rule(seconds=st.floats(min_value=0.001, max_value=5000))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(pick=st.integers(min_value=0), code=st.sampled_from([0, 1, None]), oom=st.booleans())
    def end_by_itself(self, pick: int, code: int | None, *, oom: bool) -> None:
        alive = [slot for slot, found in self.instances.items() if found.alive]
        if alive:
            slot = alive[pick % len(alive)]
            ended = Exit(at=self.now, code=code, signal=None if code is not None else 9, oom=oom)
            self.instances[slot] = replace(self.instances[slot], state=State.EXITED, exit=ended)

    @rule(pick=st.integers(min_value=0))
    def come_up(self, pick: int) -> None:
        starting = [slot for slot, found in self.instances.items() if found.state is State.STARTING]
        if starting:
            slot = starting[pick % len(starting)]
            self.instances[slot] = replace(self.instances[slot], state=State.RUNNING)

    @rule(fails=st.booleans())
    def supervise(self, *, fails: bool) -> None:
        """One turn of the loop."""
        self.carry_out(decide(self.world()), fails=fails)

    @rule(part=st.integers(min_value=0, max_value=5))
    def die_in_the_middle(self, part: int) -> None:
        """The controller performs some of its actions and is killed before it reports."""
        decision = decide(self.world())
        for action in decision.actions[:part]:
            self.perform(action, fails=False)

    @rule()
    def settle(self) -> None:
        """Left alone, every life comes to a point where nothing more is to do, and says so twice alike."""
        for _ in range(STEPS_TO_SETTLE):
            decision = decide(self.world())
            if self.at_rest(decision) and not (self.identity.deleting and not self.released):
                break
            self.carry_out(decision, fails=False)
            self.end_what_was_asked_to()
            if decision.revisit is not None and not decision.actions:
                self.now = max(self.now, min(decision.revisit, self.now + 100))
        else:
            raise AssertionError(f"not settled after {STEPS_TO_SETTLE} turns: {decide(self.world())}")
        again = decide(self.world())
        assert said(again.status) == said(self.status)
        assert again.actions == ()
        assert again.events == ()
        if self.identity.deleting:
            assert self.released
            assert not self.instances

    @invariant()
    def one_instance_for_a_replica(self) -> None:
        ordinals = [slot.ordinal for slot, found in self.instances.items() if found.alive]
        assert len(ordinals) == len(set(ordinals))

    def world(self) -> World:
        instances = tuple(sorted(self.instances.values(), key=lambda found: found.created_at))
        return World(
            self.now,
            self.identity,
            self.spec,
            self.source,
            self.capabilities,
            instances,
            self.status,
        )

    def at_rest(self, decision: Decision) -> bool:
        due = decision.revisit is not None and decision.revisit <= self.now + 1
        return decision.actions == () and said(decision.status) == said(self.status) and not due

    def carry_out(self, decision: Decision, *, fails: bool) -> None:
        for action in decision.actions:
            self.perform(action, fails=fails)
        self.status = PluginStatus.model_validate(decision.status.model_dump(by_alias=True))
        if decision.released:
            assert self.identity.deleting
            assert not self.instances
        self.released = decision.released

    def perform(self, action: Action, *, fails: bool) -> None:
        match action:
            case Hold():
                self.identity = replace(self.identity, finalizers=(FINALIZER,))
            case Start(workload=workload, slot=slot):
                assert not isinstance(self.spec, tuple), "a refused plugin was started"
                assert not self.identity.deleting, "a plugin was started while it is deleted"
                assert self.allowed(), "a plugin was started though a control does not hold"
                assert self.identity.held, "a plugin was started while its object could disappear"
                assert slot not in self.used, "a slot was used twice"
                self.used.add(slot)
                self.now += 0.001
                self.instances[slot] = Instance(
                    plugin_uid=UID,
                    name=instance_name(workload, slot),
                    slot=slot,
                    revision=workload.revision,
                    state=State.EXITED if fails else State.STARTING,
                    created_at=self.now,
                    exit=Exit(at=self.now, problem="no such file") if fails else None,
                )
            case Stop(slot=slot):
                found = self.instances[slot]
                assert found.state in {State.STARTING, State.RUNNING}
                self.instances[slot] = replace(found, state=State.STOPPING, stopping_at=self.now)
            case Kill(slot=slot):
                self.end(slot)
            case Remove(slot=slot):
                assert not self.instances[slot].alive, "a living instance was removed"
                del self.instances[slot]

    def end(self, slot: Slot) -> None:
        found = self.instances[slot]
        self.instances[slot] = replace(found, state=State.EXITED, exit=Exit(at=self.now, signal=9))

    def end_what_was_asked_to(self) -> None:
        for slot, found in list(self.instances.items()):
            if found.state is State.STOPPING:
                self.end(slot)
            elif found.state is State.STARTING:
                self.instances[slot] = replace(found, state=State.RUNNING)

    def allowed(self) -> bool:
        return all(
            entry.level is Level.ENFORCED or entry.control in self.spec.sandbox.allow_degraded
            for entry in self.capabilities.controls
        )


def said(status: PluginStatus) -> dict[str, Any]:
    """Return a status as the control plane stores it: times to the microsecond."""
    return status.model_dump(mode="json", by_alias=True)


PluginLife.TestCase.settings = settings(stateful_step_count=30, deadline=None)
TestPluginLife = PluginLife.TestCase
