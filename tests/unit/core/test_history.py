"""The revisions a Plugin went through, and going back to one of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from build import DIGEST, UID, ended, identity, instance, plugin, world
from hypothesis import given
from hypothesis import strategies as st

from crucible.core.admission import admit
from crucible.core.decide import decide
from crucible.core.history import remember
from crucible.errors import InvalidManifest
from crucible.model.decision import Forget, Remember, Start, Stop
from crucible.model.instance import State
from crucible.model.revision import Revision, read_revision, revision_object
from crucible.model.status import PluginStatus, RevisionReport, SourceReport

if TYPE_CHECKING:
    from crucible.model.decision import Decision

OLD: dict[str, Any] = {"config": {"a": 1}}
NEW: dict[str, Any] = {"config": {"a": 2}}
SOURCE = SourceReport(digest=DIGEST, resolved_for="inline")


def claim(decision: Decision, kind: str) -> tuple[str, str]:
    (found,) = [entry for entry in decision.status.conditions if entry.type == kind]
    return found.status, found.reason


def good_old() -> tuple[PluginStatus, Revision]:
    """Return the status of a plugin whose first revision runs well, and that revision."""
    first = decide(world(spec=OLD))
    (remembered,) = first.keeping
    assert isinstance(remembered, Remember)
    runs = instance(1, revision=first.status.revision)
    return decide(world(runs, spec=OLD, status=first.status)).status, remembered.revision


STATUS, KEPT = good_old()


def after_update(**spec: Any) -> tuple[PluginStatus, str]:
    """Return the status once another manifest was applied, and what it asks for."""
    status = decide(world(spec={**NEW, **spec}, status=STATUS)).status
    return status, status.revision


def test_a_revision_is_remembered_once_and_good_when_all_is_ready() -> None:
    (only,) = STATUS.history
    assert (only.number, only.revision, only.good) == (1, KEPT.revision, True)
    again = decide(world(instance(1, revision=KEPT.revision), spec=OLD, status=STATUS))
    assert again.keeping == ()
    assert again.status.history == STATUS.history


def test_one_that_may_be_taken_back_is_good_only_after_a_while() -> None:
    spec = {**OLD, "update": {"rollbackOnFailure": True}}
    first = decide(world(spec=spec))
    runs = instance(1, revision=first.status.revision)
    early = decide(world(runs, spec=spec, status=first.status))
    assert not early.status.history[0].good
    assert early.revisit == 1001.0
    late = decide(world(runs, spec=spec, status=early.status, now=1001.0))
    assert late.status.history[0].good
    assert late.revisit is None


def test_a_new_one_comes_last_and_one_that_comes_back_keeps_its_fame() -> None:
    status, wanted = after_update()
    assert [each.revision for each in status.history] == [KEPT.revision, wanted]
    back = decide(world(spec=OLD, status=status))
    assert [(each.number, each.revision, each.good) for each in back.status.history] == [
        (2, wanted, False),
        (3, KEPT.revision, True),
    ]
    assert back.keeping == ()


@given(st.lists(st.sampled_from("abcdefgh"), max_size=30), st.integers(1, 4))
def test_no_more_is_kept_than_wanted_but_for_the_newest_good_one(wanted: list[str], limit: int) -> None:
    history: tuple[RevisionReport, ...] = ()
    there: set[str] = set()
    for at, name in enumerate(wanted):
        found = remember(history, RevisionReport(number=0, revision=name, at=at, good=name == "a"), limit)
        history = found.history
        there |= {name}
        there -= {each.revision for each in found.forgotten}
        assert there == {each.revision for each in history}
        assert history[-1].revision == name
        assert len({each.number for each in history}) == len(history) <= limit + 2


def test_what_is_forgotten_is_deleted() -> None:
    status = STATUS
    spec = {"revisionHistoryLimit": 1}
    for number in (2, 3, 4):
        decision = decide(world(spec={"config": {"a": number}, **spec}, status=status))
        status = decision.status
    assert [type(each) for each in decision.keeping] == [Remember, Forget]
    assert KEPT.revision in {each.revision for each in status.history}


ON_TRIAL: dict[str, Any] = {"update": {"rollbackOnFailure": True}}


def test_a_new_revision_that_crashes_is_taken_back_on_record_before_anything_is_done() -> None:
    status, wanted = after_update(**ON_TRIAL)
    failed = decide(world(ended(2, revision=wanted), spec={**NEW, **ON_TRIAL}, status=status))
    assert failed.actions == ()
    assert failed.revisit == 1000.0
    assert [event.reason for event in failed.events] == ["Crashed", "RolledBack"]
    assert failed.status.rollback is not None
    assert (failed.status.rollback.failed, failed.status.rollback.revision) == (wanted, KEPT.revision)


def test_the_revision_before_then_runs_in_its_place_as_it_was() -> None:
    status, wanted = after_update(**ON_TRIAL)
    there = ended(2, revision=wanted)
    spec = {**NEW, **ON_TRIAL, "replicas": 2}
    failed = decide(world(there, spec={**NEW, **ON_TRIAL}, status=status)).status
    then = decide(world(there, spec=spec, status=failed, recalled={KEPT.revision: KEPT}))
    starts = [action for action in then.actions if isinstance(action, Start)]
    assert {start.workload.revision for start in starts} == {KEPT.revision}
    assert len(starts) == 2
    assert claim(then, "Degraded") == ("True", "RolledBack")
    assert claim(then, "Stalled") == ("True", "RolledBack")
    assert "exited with status 1" in then.status.conditions[-1].message
    assert then.status.history[-1].revision == wanted


def test_one_that_is_not_ready_in_time_is_taken_back() -> None:
    probe = {"health": {"ready": {"tcp": {"port": 1}}}, "update": {"rollbackOnFailure": True}}
    status, wanted = after_update(**probe)
    there = instance(2, revision=wanted, created_at=1000.0)
    waiting = decide(world(there, spec={**NEW, **probe}, status=status))
    assert waiting.revisit == 1030.0
    assert waiting.status.rollback is None
    failed = decide(world(there, spec={**NEW, **probe}, status=waiting.status, now=1030.0))
    assert failed.status.rollback is not None
    assert "was not ready within 30 s" in failed.status.rollback.message


def test_rollback_as_a_step_of_recovery_follows_the_restarts() -> None:
    spec = {**NEW, "recovery": {"strategy": ["restart", "rollback", "quarantine"], "maxRestarts": 1}}
    status, wanted = after_update(recovery=spec["recovery"])
    once = decide(world(ended(2, revision=wanted), spec=spec, status=status))
    assert once.status.rollback is None
    twice = decide(world(ended(3, at=999.5, revision=wanted), spec=spec, status=once.status, now=999.5))
    assert twice.status.rollback is not None
    assert "ended 2 times" in twice.status.rollback.message
    lost = decide(world(ended(3, at=999.5, revision=wanted), spec=spec, status=twice.status, now=999.5))
    assert lost.actions == (), "the revision to go back to is gone, and nothing else is left but to say so"


def test_without_a_good_one_there_is_no_way_back() -> None:
    first = decide(world(spec={**NEW, **ON_TRIAL})).status
    failed = decide(world(ended(1, revision=first.revision), spec={**NEW, **ON_TRIAL}, status=first))
    assert failed.status.rollback is None
    assert [type(action) for action in failed.actions] == [Start]


def test_another_manifest_or_a_restart_is_tried_as_it_is() -> None:
    status, wanted = after_update(**ON_TRIAL)
    failed = decide(world(ended(2, revision=wanted), spec={**NEW, **ON_TRIAL}, status=status)).status
    kept = {KEPT.revision: KEPT}
    for change in (
        {"spec": {"config": {"a": 3}}},
        {"spec": {**NEW, **ON_TRIAL}, "identity": identity(restart="now")},
    ):
        decision = decide(world(status=failed, recalled=kept, **change))
        (start,) = decision.actions
        assert isinstance(start, Start)
        assert start.workload.revision not in {KEPT.revision, wanted}
        assert decision.status.rollback is None


def test_a_person_may_go_back_to_any_revision_and_it_is_no_failure() -> None:
    status, wanted = after_update()
    asked = identity(rollback=f"{wanted} {KEPT.revision}")
    runs = instance(2, revision=wanted)
    going = decide(world(runs, spec=NEW, status=status, identity=asked, recalled={KEPT.revision: KEPT}))
    assert going.actions == (Stop(runs.slot),)
    back = decide(
        world(
            instance(3, revision=KEPT.revision),
            spec=NEW,
            status=going.status,
            identity=asked,
            recalled={KEPT.revision: KEPT},
        )
    )
    assert claim(back, "Ready") == ("True", "Running")
    assert claim(back, "Stalled")[0] == "False"
    assert back.status.rollback is not None
    assert back.status.rollback.asked


@pytest.mark.parametrize("asked", ["x y", "{wanted} unknown", "{wanted} {wanted}", "{wanted}", " "])
def test_what_is_asked_of_no_revision_there_is_counts_for_nothing(asked: str) -> None:
    status, wanted = after_update()
    who = identity(rollback=asked.format(wanted=wanted))
    decision = decide(world(instance(2, revision=wanted), spec=NEW, status=status, identity=who))
    assert decision.actions == ()
    assert decision.status.rollback is None


KEEP = {KEPT.revision: KEPT}


def going_back(**asked: Any) -> tuple[PluginStatus, Any]:
    """Return a plugin whose second revision runs well, and who it is once it was asked to go back."""
    status, wanted = after_update()
    status = decide(world(instance(2, revision=wanted), spec=NEW, status=status)).status
    return status, identity(looked_at="later", **asked)


def test_what_was_asked_of_a_revision_without_a_name_yet_is_done_once_it_has_one() -> None:
    """A restart and a rollback, while the plugin is held still: it goes on with the earlier revision."""
    status, who = going_back(
        restart="later", rollback=f"- {KEPT.revision} 0123", manifest="0123", frozen="now"
    )
    wanted = status.history[-1].revision
    still = instance(2, revision=wanted, frozen=True)
    held = decide(world(still, spec=NEW, status=status, identity=who, recalled=KEEP))
    assert (held.status.phase, held.status.answered, held.status.looked_at) == ("Frozen", "", "")
    who = replace(who, frozen="")
    thawed = decide(world(still, spec=NEW, status=held.status, identity=who, recalled=KEEP))
    runs = instance(2, revision=wanted)
    going = decide(world(runs, spec=NEW, status=thawed.status, identity=who, recalled=KEEP))
    assert going.actions == (Stop(runs.slot),)
    assert going.events == ()
    assert going.status.rollback is not None
    newest = going.status.history[-1].revision
    assert newest not in {wanted, KEPT.revision}
    assert (going.status.rollback.failed, going.status.rollback.revision) == (newest, KEPT.revision)
    assert (going.status.answered, going.status.looked_at) == (who.rollback, "later")


def test_what_was_done_goes_on_when_the_manifest_changes_in_what_makes_no_revision() -> None:
    status, who = going_back(restart="later", rollback=f"- {KEPT.revision} 0123", manifest="0123")
    first = decide(world(spec=NEW, status=status, identity=who, recalled=KEEP))
    scaled = {**NEW, "replicas": 2, "suspend": False}
    other = replace(who, manifest="4567", generation=9)
    again = decide(world(spec=scaled, status=first.status, identity=other, recalled=KEEP))
    assert again.status.rollback == first.status.rollback
    assert [event for event in again.events if event.reason == "RollbackRefused"] == []


def test_another_restart_ends_what_was_asked_of_a_revision_without_a_name() -> None:
    status, who = going_back(restart="later", rollback=f"- {KEPT.revision} 0123", manifest="0123")
    back = decide(world(spec=NEW, status=status, identity=who, recalled=KEEP)).status
    later = replace(who, restart="last", manifest="4567")
    tried = decide(world(spec=NEW, status=back, identity=later, recalled=KEEP))
    assert tried.status.rollback is None
    assert [event.reason for event in tried.events if event.reason == "RollbackRefused"] == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (f"- {KEPT.revision} 9999", "the manifest was changed, or a restart asked for"),
        ("- unknown 0123", "revision unknown is not kept any more"),
        ("0123", "write WANTED TARGET"),
        (f"{{wanted}} {KEPT.revision} 0123", ""),
    ],
)
def test_what_a_person_asks_for_is_done_or_refused_by_one_event(asked: str, words: str) -> None:
    status, who = going_back(manifest="0123")
    who = replace(who, rollback=asked.format(wanted=status.history[-1].revision))
    runs = instance(2, revision=status.history[-1].revision)
    first = decide(world(runs, spec=NEW, status=status, identity=who, recalled=KEEP))
    refused = [event.message for event in first.events if event.reason == "RollbackRefused"]
    assert [words in message for message in refused] == ([True] if words else [])
    assert first.status.answered == who.rollback
    again = decide(world(runs, spec=NEW, status=first.status, identity=who, recalled=KEEP))
    assert [event for event in again.events if event.reason == "RollbackRefused"] == []


def test_going_back_to_what_is_not_kept_whole_any_more_is_refused_by_an_event() -> None:
    status, who = going_back()
    wanted = status.history[-1].revision
    who = replace(who, rollback=f"{wanted} {KEPT.revision}")
    decision = decide(world(instance(2, revision=wanted), spec=NEW, status=status, identity=who))
    assert decision.actions == ()
    assert any("not kept whole" in event.message for event in decision.events)


def test_what_ended_under_an_earlier_release_is_not_told_as_refused() -> None:
    status, who = going_back()
    who = replace(who, rollback=f"{KEPT.revision} {KEPT.revision}")
    decision = decide(
        world(instance(2, revision=status.history[-1].revision), spec=NEW, status=status, identity=who)
    )
    assert decision.events == ()


def test_what_runs_in_the_place_of_another_is_not_forgotten_whatever_the_limit() -> None:
    spec = {**NEW, "revisionHistoryLimit": 1}
    status, who = going_back(restart="later", rollback=f"- {KEPT.revision} 0123", manifest="0123")
    first = decide(world(spec=spec, status=status, identity=who, recalled=KEEP))
    assert KEPT.revision in [each.revision for each in first.status.history]
    assert not [each for each in first.keeping if isinstance(each, Forget)]
    second = decide(world(spec=spec, status=first.status, identity=who, recalled=KEEP))
    assert second.status.rollback == first.status.rollback is not None


def test_what_is_suspended_and_asks_for_the_same_was_looked_at() -> None:
    status, who = going_back()
    suspended = {**NEW, "suspend": True}
    same = decide(world(spec=suspended, status=status, identity=who))
    assert same.status.looked_at == "later"
    other = decide(world(spec=suspended, status=status, identity=replace(who, restart="later")))
    assert other.status.looked_at == ""


def test_history_outlives_every_other_state() -> None:
    for changes in (
        {"spec": {**OLD, "suspend": True}},
        {"outage": "gone"},
        {"identity": identity(deleting=True)},
        {"spec": {**OLD, "type": "rune"}},
    ):
        runs = instance(1, revision=KEPT.revision, state=State.STOPPING, stopping_at=999.0)
        assert decide(world(runs, status=STATUS, **{"spec": OLD, **changes})).status.history


def test_a_revision_is_read_as_it_was_written_and_by_its_own_plugin_only() -> None:
    spec = admit(plugin(config={"a": [1, None]}, resources={"memory": "48Mi"}, stopGrace="1500ms"))
    revision = Revision("echo-abc", "abc", spec, SOURCE, "then")
    found = revision_object(identity(), revision)
    assert read_revision(found, UID) == revision
    with pytest.raises(InvalidManifest):
        read_revision(found, "another")
    with pytest.raises(InvalidManifest):
        read_revision({**found, "spec": {**found["spec"], "manifest": "{"}}, UID)
    assert replace(revision, restart="") != revision
