"""Lives of a Plugin, with ``decide`` at the wheel, and what must hold in every one of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from build import UID, capabilities, identity, plugin
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from crucible.core.admission import admit
from crucible.core.decide import decide
from crucible.core.handover import drain_of
from crucible.core.health import tally
from crucible.core.history import rollback_of
from crucible.core.render import render
from crucible.core.replica import instance_name
from crucible.errors import Violation
from crucible.model.decision import (
    Action,
    Decision,
    Deliver,
    Freeze,
    Hold,
    Kill,
    Remember,
    Remove,
    Route,
    RunHook,
    Start,
    Stop,
    Thaw,
)
from crucible.model.enforcement import Level
from crucible.model.health import Answer
from crucible.model.instance import Exit, Instance, State
from crucible.model.manifest import ConfigDelivery
from crucible.model.names import FINALIZER
from crucible.model.neighbour import Around, Neighbour
from crucible.model.status import PluginStatus, SourceReport
from crucible.model.workload import config_digest
from crucible.model.world import Hooked, World

if TYPE_CHECKING:
    from crucible.model.health import Check, Streak, Watch
    from crucible.model.manifest import PluginSpec
    from crucible.model.revision import Revision
    from crucible.model.workload import Slot, Workload

STEPS_TO_SETTLE = 100


class Life(RuleBasedStateMachine):
    """A plugin that crashes, a runtime that is slow, a controller that dies between two actions.

    Subclasses say which manifests come, and what else goes wrong.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.instances: dict[Slot, Instance] = {}
        self.status = PluginStatus()
        self.identity = identity(finalizers=())
        self.spec: Any = admit(plugin())
        self.source: Any = SourceReport(digest="sha256:0", resolved_for="inline")
        self.capabilities = capabilities()
        self.released = False
        self.used: set[Slot] = set()
        self.ends_said: set[str] = set()
        self.up_since: dict[Slot, float] = {}
        self.route: frozenset[Slot] = frozenset()
        self.hooks: dict[int, Hooked] = {}
        self.rolled = False
        self.surge = 1
        self.busy = False
        self.wanted = ""
        self.streaks: dict[tuple[int, Check], Streak] = {}
        self.needed: dict[str, Neighbour] = {}
        self.crowd = 0
        self.kept: dict[str, Revision] = {}

    def change_to(self, spec: PluginSpec) -> None:
        """Somebody applies another manifest."""
        self.surge = max(self.surge, spec.update.surge(spec.replicas))
        self.spec = spec
        self.identity = replace(self.identity, generation=self.identity.generation + 1)
        self.note()

    def note(self) -> None:
        """The manifest, or the restart that is asked for, is another now."""
        now = f"{self.identity.generation}/{self.identity.restart}"
        self.identity = replace(self.identity, manifest=now, looked_at=now)

    @rule(token=st.integers(min_value=1, max_value=3))
    def ask_for_a_restart(self, token: int) -> None:
        self.identity = replace(self.identity, restart=str(token))
        self.note()

    @rule(pick=st.integers(min_value=0, max_value=5))
    def ask_for_a_rollback(self, pick: int) -> None:
        history = self.status.history
        if history:
            target = history[pick % len(history)].revision
            seen = self.status.looked_at == self.identity.looked_at
            wanted = history[-1].revision if seen else "-"
            self.identity = replace(self.identity, rollback=f"{wanted} {target} {self.identity.manifest}")

    @rule(busy=st.booleans())
    def call_or_answer(self, *, busy: bool) -> None:
        """Everybody has calls open, or nobody has."""
        self.busy = busy

    @rule(frozen=st.booleans())
    def freeze_or_thaw(self, *, frozen: bool) -> None:
        """Somebody asks to hold every instance still, or to let them go on."""
        self.identity = replace(self.identity, frozen="now" if frozen else "")

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
            self.bring_up(starting[pick % len(starting)])

    @rule(pick=st.integers(min_value=0), times=st.integers(min_value=1, max_value=3), ok=st.booleans())
    def answer_a_probe(self, pick: int, times: int, *, ok: bool) -> None:
        watches = decide(self.world()).watches
        for _ in range(times if watches else 0):
            self.take(watches[pick % len(watches)], ok=ok)

    @rule()
    def forget_every_answer(self) -> None:
        """The controller dies, and with it all that is not on record."""
        self.streaks.clear()
        self.hooks.clear()

    @rule()
    def end_hooks(self) -> None:
        self.hooks = {attempt: Hooked(over=True) for attempt in self.hooks}

    def take(self, watch: Watch, *, ok: bool) -> None:
        self.now += watch.probe.interval
        known = self.streaks.get(watch.key, watch.known)
        self.streaks[watch.key] = tally(known, Answer(ok=ok, message="as told"), self.now, watch)

    @rule(fails=st.booleans())
    def supervise(self, *, fails: bool) -> None:
        """One turn of the loop."""
        self.carry_out(decide(self.world()), fails=fails)

    @rule(part=st.integers(min_value=0, max_value=5))
    def die_in_the_middle(self, part: int) -> None:
        """The controller performs some of its actions and is killed before it reports."""
        decision = decide(self.world())
        self.wanted = decision.status.revision
        for action in decision.actions[:part]:
            self.perform(action, fails=False)

    @rule(ready=st.sampled_from([True, False, None]), crowd=st.sampled_from([0, 100]))
    def change_what_is_around(self, *, ready: bool | None, crowd: int) -> None:
        """What it needs comes, goes or is not well; others are started, or are not."""
        self.needed = {} if ready is None else {"base": Neighbour("base", "1.0.0", ready)}
        self.crowd = crowd

    @rule()
    def settle(self) -> None:
        """Left alone, every life comes to a point where nothing more is to do, and says so twice alike."""
        self.crowd = 0
        self.busy = False
        for _ in range(STEPS_TO_SETTLE):
            decision = decide(self.world())
            if self.at_rest(decision) and not (self.identity.deleting and not self.released):
                break
            self.carry_out(decision, fails=False)
            self.end_what_was_asked_to()
            for watch in decision.watches:
                self.take(watch, ok=True)
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
        held = {found.frozen for found in self.instances.values() if found.alive}
        assert held <= {self.still()}, "one is held still that should go on, or goes on"
        if self.runs():
            self.only_the_wanted_revision_is_left()
            assert all(found.reached for found in self.instances.values() if found.alive)

    def only_the_wanted_revision_is_left(self) -> None:
        """But for replicas whose new revision was given up, and those that wait for these."""
        halted = any(replica.quarantined for replica in self.status.instances)
        revisions = {found.revision for found in self.instances.values() if found.alive}
        assert halted or revisions <= {self.status.revision}
        assert halted or self.status.ready_replicas == self.spec.replicas
        configs = {found.config for found in self.instances.values() if found.alive}
        wanted = config_digest(json.dumps(self.running.config, sort_keys=True))
        assert halted or configs <= {wanted}, "an old configuration is left"

    @property
    def running(self) -> Any:
        """What is to run: the manifest, or an earlier revision as often and replaced as the manifest says."""
        if isinstance(self.spec, tuple) or isinstance(self.source, Violation):
            return self.spec
        wanted = render(self.identity, self.spec, self.source).revision
        back = rollback_of(self.identity, self.status, wanted).rollback
        kept = self.kept.get(back.revision) if back is not None else None
        if kept is None or not self.holds(kept.spec):
            return self.spec
        return kept.spec.model_copy(update={"replicas": self.spec.replicas, "update": self.spec.update})

    @invariant()
    def no_more_are_alive_than_the_strategy_allows(self) -> None:
        alive = [found for found in self.instances.values() if found.alive]
        if not self.rolled:
            ordinals = [found.slot.ordinal for found in alive]
            assert len(ordinals) == len(set(ordinals))
        running = [found.slot.ordinal for found in alive if found.state is not State.STOPPING]
        assert len(running) - len(set(running)) <= self.surge, "too many replicas have two instances at once"

    def runs(self) -> bool:
        """The manifest asks for instances, and nothing stands in their way."""
        free = not isinstance(self.spec, tuple) and not isinstance(self.source, Violation)
        free = free and not self.identity.deleting and not self.still()
        return free and not self.spec.suspend and self.allowed() and not self.waits()

    def still(self) -> bool:
        """Somebody wants every instance held still, and nothing comes before that."""
        asked = bool(self.identity.frozen) and not self.identity.deleting
        return asked and not isinstance(self.spec, tuple) and not self.spec.suspend and self.allowed()

    def waits(self) -> bool:
        """What is to run cannot do without something that is not there."""
        return any(
            not wanted.optional and not (wanted.name in self.needed and self.needed[wanted.name].ready)
            for wanted in self.running.dependencies
        )

    def rolls(self) -> bool:
        return self.runs() and self.spec.update.overlaps

    def another_serves(self, found: Instance) -> bool:
        """One that served before this one, or one that has run for as long as it takes to be trusted."""
        verify = self.spec.update.verification - 0.001  # the status keeps times to the microsecond
        return any(
            slot.attempt < found.slot.attempt or self.now - self.up_since[slot] >= verify
            for slot, other in self.instances.items()
            if slot.ordinal == found.slot.ordinal and other.state is State.RUNNING and slot != found.slot
        )

    def enough_serve_without(self, found: Instance) -> bool:
        """No more replicas are left without one of before, or one that is to be trusted, than may be."""
        verify = self.spec.update.verification - 0.001
        served = {
            slot.ordinal
            for slot, other in self.instances.items()
            if other.state is State.RUNNING
            and other is not found
            and (other.revision != self.wanted or self.now - self.up_since[slot] >= verify)
        }
        absent = set(range(self.spec.replicas)) - served
        return len(absent) <= self.spec.update.unavailable(self.spec.replicas)

    def bring_up(self, slot: Slot) -> None:
        self.instances[slot] = replace(self.instances[slot], state=State.RUNNING)
        self.up_since[slot] = self.now

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
            streaks=dict(self.streaks),
            around=Around(self.needed),
            started_lately=self.crowd,
            recalled=dict(self.kept),
            open_calls={each.attempt: int(self.busy) for each in self.status.draining},
            hooks=dict(self.hooks),
        )

    def at_rest(self, decision: Decision) -> bool:
        due = decision.revisit is not None and (self.runs() or decision.revisit <= self.now + 1)
        moving = any(found.state in {State.STARTING, State.STOPPING} for found in self.instances.values())
        same = said(decision.status) == said(self.status)
        asked = all(self.passes(watch) for watch in decision.watches)
        return decision.actions == () and same and not due and not moving and asked

    def passes(self, watch: Watch) -> bool:
        """It was answered well so often that one more answer changes nothing."""
        newest = self.streaks.get(watch.key, watch.known)
        return newest is not None and newest.ok and newest.count >= watch.probe.successes

    def carry_out(self, decision: Decision, *, fails: bool) -> None:
        self.wanted = decision.status.revision
        for event in decision.events:
            if event.reason in {"Crashed", "Completed", "OOMKilled", "StartFailed", "Stopped"}:
                self.say_the_end_of(event.message.split()[0])
        for action in decision.actions:
            self.perform(action, fails=fails)
        for each in decision.keeping:
            if isinstance(each, Remember):
                self.kept[each.revision.revision] = each.revision
            else:
                self.kept = {key: kept for key, kept in self.kept.items() if kept.name != each.name}
        self.status = PluginStatus.model_validate(decision.status.model_dump(by_alias=True))
        if decision.released:
            assert self.identity.deleting
            assert not self.instances
        kept = {each.attempt for each in decision.status.hooks}
        self.hooks = {attempt: how for attempt, how in self.hooks.items() if attempt in kept}
        self.released = decision.released

    def say_the_end_of(self, name: str) -> None:
        assert self.identity.deleting or name not in self.ends_said, f"the end of {name} was said twice"
        self.ends_said.add(name)

    def perform(self, action: Action, *, fails: bool) -> None:
        self.rolled |= self.rolls()
        if self.still():
            assert isinstance(action, Freeze | Kill), "something is done to a plugin that is held still"
        match action:
            case Hold():
                self.identity = replace(self.identity, finalizers=(FINALIZER,))
            case Start(workload=workload, slot=slot):
                self.start(workload, slot, fails=fails)
            case Stop(slot=slot):
                self.stop(self.instances[slot])
            case Freeze() | Thaw():
                self.hold_still_or_not(action)
            case Deliver() | RunHook():
                self.deliver(action) if isinstance(action, Deliver) else self.run_hook(action)
            case Route(slots=slots):
                self.lead_to(frozenset(slots))
            case Kill(slot=slot):
                self.end(slot)
            case Remove(slot=slot):
                self.clear_away(slot)

    def start(self, workload: Workload, slot: Slot, *, fails: bool) -> None:
        assert not isinstance(self.spec, tuple), "a refused plugin was started"
        assert not self.identity.deleting, "a plugin was started while it is deleted"
        assert not self.waits(), "a plugin was started without what it needs"
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
            config=config_digest(workload.config),
            reached=not self.route or slot in self.route,
        )
        if self.hands_over() and self.others_serve(self.instances[slot]):
            assert not self.instances[slot].reached, "connections come to one that cannot serve yet"

    def clear_away(self, slot: Slot) -> None:
        assert not self.instances[slot].alive, "a living instance was removed"
        if self.runs() and slot.ordinal < self.spec.replicas:
            assert self.instances[slot].name in self.ends_said, "an end was cleared away unsaid"
        del self.instances[slot]

    def deliver(self, action: Deliver) -> None:
        found = self.instances[action.slot]
        assert found.state is State.RUNNING, "a configuration was delivered to nobody"
        assert found.revision == self.wanted, "a configuration of another revision was delivered"
        assert self.running.config_delivery is not ConfigDelivery.RESTART
        self.instances[action.slot] = replace(found, config=config_digest(action.config))

    def run_hook(self, action: RunHook) -> None:
        assert self.instances[action.slot].state is State.RUNNING, "one that does not run has no hook"
        assert action.slot.attempt not in self.hooks, "a hook was begun twice"
        self.hooks[action.slot.attempt] = Hooked(over=False)

    def lead_to(self, slots: frozenset[Slot]) -> None:
        """New connections go to these; to all where none is named."""
        for slot in slots:
            assert self.instances[slot].state is State.RUNNING, (
                "connections were sent to one that does not run"
            )
        self.route = slots
        for slot, found in self.instances.items():
            self.instances[slot] = replace(found, reached=not slots or slot in slots)

    def hands_over(self) -> bool:
        spec = self.spec
        return self.runs() and spec.update.hands_over and bool(spec.capabilities.network.listen)

    def others_serve(self, found: Instance) -> bool:
        """Another of its replica runs, and is not trusted with anything less."""
        condemned = {replica.condemned for replica in self.status.instances}
        return any(
            other.slot.ordinal == found.slot.ordinal
            and other.slot != found.slot
            and other.state is State.RUNNING
            and other.slot.attempt not in condemned
            for other in self.instances.values()
        )

    def stop(self, found: Instance) -> None:
        slot = found.slot
        assert found.state in {State.STARTING, State.RUNNING}
        assert not found.frozen, "one that is held still was asked to stop, and cannot hear it"
        condemned = slot.attempt in {replica.condemned for replica in self.status.instances}
        serves = found.state is State.RUNNING and not condemned
        if serves and not isinstance(self.spec, tuple):
            time = drain_of(self.spec, found, tuple(self.instances.values()))
            assert not time or self.has_drained(found, time), "one was stopped in the middle of its calls"
        if found.state is State.RUNNING and not isinstance(self.spec, tuple):
            assert self.has_run_its_hook(found), "one was stopped in the middle of its hook, or without it"
        if self.rolls() and slot.ordinal < self.spec.replicas and serves:
            enough = self.another_serves(found) or self.enough_serve_without(found)
            assert enough, "nobody was left to serve, or nobody verified"
        self.instances[slot] = replace(found, state=State.STOPPING, stopping_at=self.now)

    def has_run_its_hook(self, found: Instance) -> bool:
        how = self.hooks.get(found.slot.attempt)
        due = {each.attempt: each.due for each in self.status.hooks}.get(found.slot.attempt)
        over = how is not None and how.over
        return self.spec.lifecycle.pre_stop is None or over or (due is not None and due <= self.now)

    def has_drained(self, found: Instance, time: float) -> bool:
        """It was given nothing new for long enough, or has nothing left to do."""
        since = {each.attempt: each.since for each in self.status.draining}.get(found.slot.attempt)
        over = since is not None and self.now - since >= time - 0.001
        counted = not self.hands_over()
        return since is not None and (over or (counted and not self.busy))

    def hold_still_or_not(self, action: Freeze | Thaw) -> None:
        freezes = isinstance(action, Freeze)
        assert self.still() is freezes, "one is held still that should go on, or goes on"
        assert self.instances[action.slot].state is State.RUNNING
        self.instances[action.slot] = replace(self.instances[action.slot], frozen=freezes)

    def end(self, slot: Slot) -> None:
        found = self.instances[slot]
        self.instances[slot] = replace(found, state=State.EXITED, exit=Exit(at=self.now, signal=9))

    def end_what_was_asked_to(self) -> None:
        for slot, found in list(self.instances.items()):
            if found.state is State.STOPPING:
                self.end(slot)
            elif found.state is State.STARTING:
                self.bring_up(slot)

    def allowed(self) -> bool:
        return self.holds(self.spec)

    def holds(self, spec: PluginSpec) -> bool:
        """Every control holds that the manifest does not do without."""
        return all(
            entry.level is Level.ENFORCED or entry.control in spec.sandbox.allow_degraded
            for entry in self.capabilities.controls
        )


def said(status: PluginStatus) -> dict[str, Any]:
    """Return a status as the control plane stores it: times to the microsecond."""
    return status.model_dump(mode="json", by_alias=True)
