"""Commands against a server that answers what the test says: what is asked, printed, and returned."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from crucible.model.asked import manifest_digest

if TYPE_CHECKING:
    from pathlib import Path

PLUGINS = "/apis/crucible.dev/v1alpha1/namespaces/default/plugins"
EVENTS = "/api/v1/namespaces/default/events"
PODS = "/api/v1/namespaces/default/pods"


def listed(*items: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "PluginList", "metadata": {"resourceVersion": "9"}, "items": list(items)}


@pytest.fixture
def manifest(tmp_path: Path, make_plugin: Any) -> Path:
    path = tmp_path / "demo.yaml"
    content = make_plugin()
    path.write_text(yaml.safe_dump({**content, "metadata": {"name": "demo"}}))
    return path


class TestApply:
    @pytest.mark.parametrize(
        ("before", "code", "version", "word"),
        [(None, 201, "1", "created"), ("1", 200, "2", "configured"), ("2", 200, "2", "unchanged")],
    )
    def test_says_what_became_of_it(  # noqa: PLR0913 - four figures of one case
        self, crucible: Any, server: Any, manifest: Path, make_plugin: Any, *,
        before: str | None, code: int, version: str, word: str,
    ) -> None:  # fmt: skip
        if before:
            server.answer("GET", f"{PLUGINS}/demo", make_plugin(metadata={"resourceVersion": before}))
        after = make_plugin(metadata={"resourceVersion": version})
        server.answer("PATCH", f"{PLUGINS}/demo", after, code=code)
        ended = crucible("apply", "-f", str(manifest))
        assert (ended.code, ended.out) == (0, f"plugin.crucible.dev/demo {word}\n")
        (asked,) = server.said("PATCH")
        assert asked.kind == "application/apply-patch+yaml"
        assert asked.params == {"fieldManager": "crucible", "force": "true", "fieldValidation": "Strict"}

    def test_sends_nothing_when_one_of_several_is_wrong(
        self, crucible: Any, server: Any, manifest: Path, tmp_path: Path
    ) -> None:
        wrong = tmp_path / "wrong.yaml"
        wrong.write_text(manifest.read_text().replace("demo", "other").replace("python", "pyton"))
        ended = crucible("apply", "-f", str(manifest), "-f", str(wrong))
        assert ended.code == 4
        assert "wrong.yaml:" in ended.err
        assert "spec.type" in ended.err
        assert server.asked == []

    def test_rehearses_several_before_it_keeps_any(
        self, crucible: Any, server: Any, manifest: Path, tmp_path: Path, make_plugin: Any
    ) -> None:
        other = tmp_path / "other.yaml"
        other.write_text(manifest.read_text().replace("name: demo", "name: other"))
        server.answer("PATCH", f"{PLUGINS}/demo", make_plugin())
        refusal = {"kind": "Status", "code": 422, "message": "no", "details": {
            "causes": [{"field": "spec.type", "message": "denied by policy"}]}}  # fmt: skip
        server.answer("PATCH", f"{PLUGINS}/other", refusal, code=422)
        ended = crucible("apply", "-f", str(manifest), "-f", str(other))
        assert (ended.code, ended.out) == (4, "")
        assert ended.err == "error: spec.type: denied by policy\n"
        assert [asked.params.get("dryRun") for asked in server.said("PATCH")] == ["All", "All"]

    def test_a_dry_run_asks_nobody(self, crucible: Any, server: Any, manifest: Path) -> None:
        ended = crucible("apply", "--dry-run", "-f", str(manifest))
        assert (ended.code, ended.out) == (0, "plugin.crucible.dev/demo valid (dry run)\n")
        assert server.asked == []

    def test_waits_until_the_newest_generation_is_ready(
        self, crucible: Any, server: Any, manifest: Path, make_plugin: Any, make_ready: Any
    ) -> None:
        newer = {"generation": 2, "resourceVersion": "2"}
        server.answer("PATCH", f"{PLUGINS}/demo", make_plugin(metadata=newer))
        server.answer(
            "GET", f"{PLUGINS}/demo",
            make_plugin(status=make_ready()),
            make_plugin(metadata=newer, status=make_ready()),
            make_plugin(metadata=newer, status=make_ready(observedGeneration=2)),
        )  # fmt: skip
        ended = crucible("apply", "--wait", "-f", str(manifest))
        assert ended.out.splitlines()[-1] == "plugin.crucible.dev/demo ready"

    def test_a_suspended_plugin_is_not_called_ready(
        self, crucible: Any, server: Any, manifest: Path, make_plugin: Any
    ) -> None:
        server.answer("PATCH", f"{PLUGINS}/demo", make_plugin())
        resting = {"observedGeneration": 1, "phase": "Suspended"}
        server.answer("GET", f"{PLUGINS}/demo", make_plugin(status=resting))
        assert crucible("apply", "--wait", "-f", str(manifest)).out.endswith("demo suspended\n")

    def test_does_not_wait_for_what_will_not_come(
        self, crucible: Any, server: Any, manifest: Path, make_plugin: Any
    ) -> None:
        why = {"type": "Stalled", "status": "True", "reason": "X", "message": "cpu cannot be enforced"}
        stalled = {"observedGeneration": 1, "phase": "Refused", "conditions": [why]}
        server.answer("PATCH", f"{PLUGINS}/demo", make_plugin())
        server.answer("GET", f"{PLUGINS}/demo", make_plugin(status=stalled))
        ended = crucible("apply", "--wait", "--timeout", "1h", "-f", str(manifest))
        assert (ended.code, ended.err) == (1, "error: demo will not come up: cpu cannot be enforced\n")

    def test_time_runs_out_with_the_reason(
        self, crucible: Any, server: Any, manifest: Path, make_plugin: Any
    ) -> None:
        server.answer("PATCH", f"{PLUGINS}/demo", make_plugin())
        server.answer("GET", f"{PLUGINS}/demo", make_plugin())
        ended = crucible("apply", "--wait", "--timeout", "100ms", "-f", str(manifest))
        assert ended.code == 1
        assert ended.err == (
            "error: demo is not ready: the controller has not spoken of it yet; waited 0.1 s\n"
        )


class TestGet:
    def test_prints_a_table(self, crucible: Any, server: Any, make_plugin: Any, make_ready: Any) -> None:
        server.answer("GET", PLUGINS, listed(make_plugin(status=make_ready(restarts=2)), make_plugin("b")))
        ended = crucible("get")
        head, first, second = ended.out.splitlines()
        assert head.split() == ["NAME", "TYPE", "VERSION", "PHASE", "READY", "RESTARTS", "REASON", "AGE"]
        assert first.split()[:7] == ["demo", "python", "1.0.0", "Running", "1/1", "2", "Running"]
        assert second.split()[:6] == ["b", "python", "1.0.0", "Pending", "0/1", "0"]
        assert "\x1b" not in ended.out

    def test_a_hostile_description_cannot_reach_the_terminal(
        self, crucible: Any, server: Any, make_plugin: Any
    ) -> None:
        server.answer("GET", PLUGINS, listed(make_plugin(spec={"version": "\x1b[2J1"})))
        assert r"\x1b[2J1" in crucible("get").out

    def test_an_empty_list_says_what_to_do(self, crucible: Any, server: Any) -> None:
        server.answer("GET", PLUGINS, listed())
        ended = crucible("get")
        assert (ended.code, ended.out) == (0, "")
        assert "crucible apply" in ended.err

    def test_json_and_yaml_are_what_programs_expect(
        self, crucible: Any, server: Any, make_plugin: Any
    ) -> None:
        item = make_plugin(metadata={"managedFields": [{}]})
        server.answer("GET", PLUGINS, listed(item))
        server.answer("GET", f"{PLUGINS}/demo", item)
        many = json.loads(crucible("get", "-o", "json").out)
        assert (many["kind"], len(many["items"])) == ("List", 1)
        one = yaml.safe_load(crucible("get", "demo", "-o", "yaml").out)
        assert one["kind"] == "Plugin"
        assert "managedFields" not in one["metadata"]
        assert crucible("get", "-o", "name").out == "plugin.crucible.dev/demo\n"

    def test_selectors_and_namespaces_are_passed_on(self, crucible: Any, server: Any) -> None:
        server.answer("GET", "/apis/crucible.dev/v1alpha1/plugins", listed())
        server.answer("GET", "/apis/crucible.dev/v1alpha1/namespaces/team/plugins", listed())
        crucible("get", "-A", "-l", "a=b")
        crucible("get", "plugins", "-n", "team")
        assert [asked.params for asked in server.asked] == [{"labelSelector": "a=b"}, {}]

    @pytest.mark.parametrize(
        "words", [("-A", "x"), ("-l", "a=b", "x"), ("-w", "-o", "json"), ("-o", "nonsense"), ("--nonsense",)]
    )
    def test_options_that_do_not_go_together_are_wrong_usage(self, crucible: Any, words: Any) -> None:
        assert crucible("get", *words).code == 2

    def test_a_name_that_does_not_exist_is_not_found(self, crucible: Any, server: Any) -> None:
        server.answer("GET", f"{PLUGINS}/x", {"message": 'plugins "x" not found'}, code=404)
        ended = crucible("get", "x")
        assert (ended.code, ended.err) == (3, 'error: plugins "x" not found\n')

    def test_a_name_that_does_not_exist_is_answered_with_those_that_do(
        self, crucible: Any, server: Any
    ) -> None:
        server.answer("GET", f"{PLUGINS}/x", {"message": 'plugins "x" not found'}, code=404)
        items = [{"metadata": {"name": name}} for name in ("a", "b")]
        server.answer("GET", PLUGINS, {"items": items, "metadata": {"continue": "more"}})
        ended = crucible("get", "x")
        assert (ended.code, ended.err) == (
            3, 'error: plugins "x" not found; there are: a, b, ... (crucible get -A lists all)\n'
        )  # fmt: skip

    def test_where_none_exists_that_is_said(self, crucible: Any, server: Any) -> None:
        server.answer("GET", f"{PLUGINS}/x", {"message": 'plugins "x" not found'}, code=404)
        server.answer("GET", PLUGINS, {"items": []})
        assert "there is none in this namespace (crucible get -A lists all)" in crucible("get", "x").err


class TestDescribe:
    def test_shows_state_limits_instances_enforcement_and_events(
        self, crucible: Any, server: Any, make_plugin: Any, make_ready: Any
    ) -> None:
        long_ago = "2026-01-01T00:00:00Z"
        ended = {"attempt": 1, "at": long_ago, "reason": "OOMKilled", "message": "went over its limit"}
        replica = {"ordinal": 0, "name": "demo-0-2", "state": "running", "pid": 77, "lastExit": ended}
        enforced = [{"control": "memory", "level": "enforced", "by": "cgroup v2"}]
        status = make_ready(instances=[replica], enforcement=enforced)
        server.answer("GET", f"{PLUGINS}/demo", make_plugin(status=status))
        event = {"type": "Warning", "reason": "OOMKilled", "message": "boom\x1b[0m", "count": 3}
        event |= {"involvedObject": {"kind": "Plugin", "name": "demo"}, "lastTimestamp": long_ago}
        server.answer("GET", EVENTS, {"items": [event, {**event, "involvedObject": {"kind": "Pod"}}]})
        text = crucible("describe", "demo").out
        for part in ("memory 128Mi", "demo-0-2", "77", "OOMKilled", "cgroup v2", r"boom\x1b[0m", "(x3)"):
            assert part in text
        assert text.count("boom") == 1
        found = json.loads(crucible("describe", "demo", "-o", "json").out)
        assert found["plugin"]["metadata"]["name"] == "demo"
        assert [one["reason"] for one in found["events"]] == ["OOMKilled"]
        assert found["egress"] is None

    def test_says_one_thing_once(self, crucible: Any, server: Any, make_plugin: Any) -> None:
        said = {
            "Ready": "1 of 1 replica running",
            "Progressing": "1 of 1 replica running",
            "Degraded": "boom",
        }
        conditions = [
            {"type": kind, "status": str(kind != "Progressing"), "reason": "X", "message": message}
            for kind, message in said.items()
        ]
        server.answer("GET", f"{PLUGINS}/demo", make_plugin(status={"conditions": conditions}))
        server.answer("GET", EVENTS, {"items": []})
        text = crucible("describe", "demo").out
        assert (text.count("1 of 1 replica running"), text.count("boom")) == (1, 1)
        assert "as Ready" in text
        assert "see Attention" in text


class TestEvents:
    def test_are_sorted_and_about_plugins(self, crucible: Any, server: Any) -> None:
        def event(reason: str, at: str) -> dict[str, Any]:
            about = {"kind": "Plugin", "name": "demo"}
            return {"type": "Normal", "reason": reason, "involvedObject": about, "lastTimestamp": at}

        items = [event("Second", "2026-01-02T00:00:00Z"), event("First", "2026-01-01T00:00:00Z")]
        server.answer("GET", EVENTS, {"items": items})
        reasons = [line.split()[2] for line in crucible("events").out.splitlines()[1:]]
        assert reasons == ["First", "Second"]

    def test_of_a_plugin_that_does_not_exist_are_an_error(self, crucible: Any) -> None:
        assert crucible("events", "nobody").code == 3


class TestLogs:
    @pytest.fixture(autouse=True)
    def pods(self, server: Any) -> None:
        names = ["demo-0-1", "demo-0-2", "demo-1-10", "demo-1-9"]
        server.answer("GET", PODS, {"items": [{"metadata": {"name": name}} for name in names]})
        for name in names:
            server.answer("GET", f"{PODS}/{name}/log", [f"of {name}\n".encode(), b"tail without an end"])

    def test_are_of_the_newest_instance_of_each_replica_and_say_whose(self, crucible: Any) -> None:
        assert crucible("logs", "demo").out.splitlines() == [
            "[demo-0-2] of demo-0-2",
            "[demo-0-2] tail without an end",
            "[demo-1-10] of demo-1-10",
            "[demo-1-10] tail without an end",
        ]

    def test_of_the_instance_before(self, crucible: Any) -> None:
        assert "of demo-1-9" in crucible("logs", "demo", "--previous").out

    def test_of_one_instance(self, crucible: Any, server: Any) -> None:
        assert crucible("logs", "demo", "--instance", "demo-0-1", "--tail", "3").out.startswith(
            "of demo-0-1\n"
        )
        assert server.asked[-1].params == {"tailLines": "3"}

    def test_of_an_instance_that_does_not_exist(self, crucible: Any) -> None:
        assert crucible("logs", "demo", "--instance", "demo-9-9").code == 3

    def test_follow_goes_on_with_the_next_instance_until_the_plugin_is_gone(
        self, crucible: Any, server: Any, make_plugin: Any
    ) -> None:
        gone = {"message": "gone"}
        server.answers["GET", PODS] = [
            (200, {"items": [{"metadata": {"name": "demo-0-1"}}]}),
            (200, {"items": [{"metadata": {"name": "demo-0-1"}}, {"metadata": {"name": "demo-0-2"}}]}),
        ]
        plugin = make_plugin()
        server.answers["GET", f"{PLUGINS}/demo"] = [(200, plugin), (200, plugin), (200, plugin), (404, gone)]
        said = crucible("logs", "demo", "-f").out.splitlines()
        assert [line for line in said if line.startswith("of")] == ["of demo-0-1", "of demo-0-2"]


class TestDelete:
    def test_waits_until_it_is_gone(self, crucible: Any, server: Any, make_plugin: Any) -> None:
        there = (200, make_plugin())
        server.answers["GET", f"{PLUGINS}/demo"] = [there, there, there, (404, {"message": "gone"})]
        server.answer("DELETE", f"{PLUGINS}/demo", {})
        ended = crucible("delete", "demo")
        assert (ended.code, ended.out) == (0, "plugin.crucible.dev/demo deleted\n")
        (asked,) = server.said("DELETE")
        assert asked.body["preconditions"] == {"uid": "uid-demo"}

    def test_another_of_the_same_name_is_not_waited_for(
        self, crucible: Any, server: Any, make_plugin: Any
    ) -> None:
        other = make_plugin(metadata={"uid": "another"})
        server.answer("GET", f"{PLUGINS}/demo", make_plugin(), other)
        server.answer("DELETE", f"{PLUGINS}/demo", {})
        assert crucible("delete", "demo").code == 0

    def test_what_is_missing_is_said_after_the_rest_is_deleted(
        self, crucible: Any, server: Any, make_plugin: Any
    ) -> None:
        server.answer("GET", f"{PLUGINS}/demo", make_plugin())
        server.answer("DELETE", f"{PLUGINS}/demo", {})
        ended = crucible("delete", "nobody", "demo", "--no-wait")
        assert ended.code == 3
        assert ended.out == "plugin.crucible.dev/demo is being deleted\n"
        assert "plugin.crucible.dev/nobody not found" in ended.err
        assert crucible("delete", "nobody", "--ignore-not-found").code == 0

    def test_time_runs_out_with_the_reason(self, crucible: Any, server: Any, make_plugin: Any) -> None:
        server.answer("GET", f"{PLUGINS}/demo", make_plugin())
        server.answer("DELETE", f"{PLUGINS}/demo", {})
        ended = crucible("delete", "demo", "--timeout", "100ms")
        assert ended.code == 1
        assert "demo is not gone yet" in ended.err

    @pytest.mark.parametrize("words", [(), ("x", "--all"), ("x", "--timeout", "soon")])
    def test_wrong_usage(self, crucible: Any, words: Any) -> None:
        assert crucible("delete", *words).code == 2


class TestChanging:
    @pytest.mark.parametrize(
        "case",
        [
            (("suspend", "demo"), {"suspend": True}, "suspended"),
            (("resume", "demo"), {"suspend": False}, "resumed"),
            (("scale", "demo", "--replicas", "3"), {"replicas": 3}, "scaled"),
        ],
    )
    def test_sets_its_field_and_nothing_else(
        self, crucible: Any, server: Any, make_plugin: Any, case: Any
    ) -> None:
        words, spec, word = case
        before = make_plugin(spec={"suspend": word == "resumed", "replicas": 1})
        server.answer("GET", f"{PLUGINS}/demo", before)
        server.answer("PATCH", f"{PLUGINS}/demo", before)
        assert crucible(*words).out == f"plugin.crucible.dev/demo {word}\n"
        (asked,) = server.said("PATCH")
        assert asked.body == {"spec": spec}

    def test_leaves_alone_what_is_so_already(self, crucible: Any, server: Any, make_plugin: Any) -> None:
        server.answer("GET", f"{PLUGINS}/demo", make_plugin(spec={"suspend": True}))
        assert crucible("suspend", "demo").out == "plugin.crucible.dev/demo unchanged\n"
        assert server.said("PATCH") == []

    def test_waits_until_all_have_stopped(self, crucible: Any, server: Any, make_plugin: Any) -> None:
        stopping, resting = (make_plugin(status={"phase": phase}) for phase in ("Stopping", "Suspended"))
        server.answer("GET", f"{PLUGINS}/demo", stopping, stopping, resting)
        server.answer("PATCH", f"{PLUGINS}/demo", stopping)
        ended = crucible("suspend", "demo", "--wait")
        assert ended.out.splitlines()[-1] == "plugin.crucible.dev/demo stopped"

    @pytest.mark.parametrize(
        "words", [("suspend",), ("scale", "demo"), ("scale", "demo", "--replicas", "-1")]
    )
    def test_wrong_usage(self, crucible: Any, words: Any) -> None:
        assert crucible(*words).code == 2


class TestFreezing:
    def test_sets_an_annotation_and_waits_until_all_is_still(
        self, crucible: Any, server: Any, make_plugin: Any
    ) -> None:
        moving, still = (
            make_plugin(status={"phase": "Frozen", "conditions": [{"type": "Progressing", "status": status}]})
            for status in ("True", "False")
        )
        server.answer("GET", f"{PLUGINS}/demo", make_plugin(), moving, still)
        server.answer("PATCH", f"{PLUGINS}/demo", moving)
        ended = crucible("freeze", "demo")
        assert ended.out.splitlines() == [
            "plugin.crucible.dev/demo asked to freeze",
            "plugin.crucible.dev/demo frozen",
        ]
        (asked,) = server.said("PATCH")
        (annotation,) = asked.body["metadata"]["annotations"].items()
        assert annotation[0] == "crucible.dev/frozen"
        assert annotation[1].endswith("Z")

    def test_takes_the_wish_back_where_the_runtime_cannot(
        self, crucible: Any, server: Any, make_plugin: Any
    ) -> None:
        why = {"type": "Degraded", "status": "True", "reason": "FreezeUnavailable", "message": "a pod cannot"}
        server.answer("GET", f"{PLUGINS}/demo", make_plugin(), make_plugin(status={"conditions": [why]}))
        server.answer("PATCH", f"{PLUGINS}/demo", make_plugin())
        ended = crucible("freeze", "demo")
        assert ended.code == 1
        assert "demo goes on: a pod cannot" in ended.err
        assert server.said("PATCH")[-1].body == {"metadata": {"annotations": {"crucible.dev/frozen": None}}}

    def test_thaw_removes_it_and_leaves_alone_what_has_none(
        self, crucible: Any, server: Any, make_plugin: Any
    ) -> None:
        plugin = make_plugin()
        marked = {**plugin, "metadata": {**plugin["metadata"], "annotations": {"crucible.dev/frozen": "x"}}}
        server.answer("GET", f"{PLUGINS}/demo", plugin, marked)
        server.answer("PATCH", f"{PLUGINS}/demo", plugin)
        assert crucible("thaw", "demo").out == "plugin.crucible.dev/demo unchanged\n"
        assert crucible("thaw", "demo").out == "plugin.crucible.dev/demo thawed\n"
        assert crucible("freeze").code == 2


HISTORY = [
    {"number": 1, "version": "1.0.0", "revision": "aaa", "at": "2026-01-01T00:00:00.000000Z", "good": True},
    {"number": 2, "version": "1.1.0", "revision": "bbb", "at": "2026-01-01T00:00:00.000000Z", "good": False},
    {"number": 3, "version": "1.2.0", "revision": "ccc", "at": "2026-01-01T00:00:00.000000Z", "good": False},
]


class TestRevisions:
    def test_lists_what_is_wanted_and_what_runs(self, crucible: Any, server: Any, make_plugin: Any) -> None:
        server.answer("GET", f"{PLUGINS}/demo", make_plugin(status={"history": HISTORY, "revision": "aaa"}))
        lines = crucible("history", "demo").out.splitlines()
        assert lines[0].split() == ["NUMBER", "VERSION", "REVISION", "AGE", "GOOD", "NOW"]
        assert lines[1].split()[4:] == ["yes", "runs"]
        assert lines[3].split()[4:] == ["no", "wanted"]

    @pytest.mark.parametrize(("words", "target"), [((), "aaa"), (("--to", "2"), "bbb")])
    def test_asks_for_an_earlier_one_in_the_place_of_the_wanted_one(
        self, crucible: Any, server: Any, make_plugin: Any, words: Any, target: str
    ) -> None:
        before = make_plugin(status={"history": HISTORY})
        server.answer("GET", f"{PLUGINS}/demo", before)
        server.answer("PATCH", f"{PLUGINS}/demo", before)
        assert crucible("rollback", "demo", *words).code == 0
        (asked,) = server.said("PATCH")
        words = f"ccc {target} {manifest_digest(before)}"
        assert asked.body == {"metadata": {"annotations": {"crucible.dev/rollback": words}}}

    @pytest.mark.parametrize(
        ("words", "target"), [((), "ccc"), (("--to", "3"), "ccc"), (("--to", "1"), "aaa")]
    )
    def test_of_what_the_controller_has_not_looked_at_the_last_it_knows_is_an_earlier_one(
        self, crucible: Any, server: Any, make_plugin: Any, words: Any, target: str
    ) -> None:
        history = [*HISTORY[:-1], {**HISTORY[-1], "good": True}]
        before = make_plugin(status={"history": history, "lookedAt": "another"})
        server.answer("GET", f"{PLUGINS}/demo", before)
        server.answer("PATCH", f"{PLUGINS}/demo", before)
        ended = crucible("rollback", "demo", *words)
        assert "once the controller has looked at the manifest" in ended.out
        (asked,) = server.said("PATCH")
        assert asked.body["metadata"]["annotations"] == {
            "crucible.dev/rollback": f"- {target} {manifest_digest(before)}"
        }

    def test_a_wait_ends_when_it_is_refused(self, crucible: Any, server: Any, make_plugin: Any) -> None:
        before = make_plugin(status={"history": HISTORY})
        asked = f"ccc aaa {manifest_digest(before)}"
        refused = make_plugin(status={"history": HISTORY, "answered": asked})
        server.answer("GET", f"{PLUGINS}/demo", before, refused)
        server.answer("PATCH", f"{PLUGINS}/demo", before)
        ended = crucible("rollback", "demo", "--wait")
        assert ended.code == 1
        assert "RollbackRefused" in ended.err

    @pytest.mark.parametrize(
        "case",
        [
            ([], (), "no earlier revision that was good"),
            (HISTORY[1:], (), "no earlier revision that was good"),
            (HISTORY, ("--to", "3"), "is what the manifest of demo asks for"),
            (HISTORY, ("--to", "9"), "has no revision 9"),
        ],
    )
    def test_says_why_there_is_nothing_to_go_back_to(
        self, crucible: Any, server: Any, make_plugin: Any, case: Any
    ) -> None:
        history, words, what = case
        server.answer("GET", f"{PLUGINS}/demo", make_plugin(status={"history": history}))
        ended = crucible("rollback", "demo", *words)
        assert ended.code == 1
        assert what in ended.err
        assert server.said("PATCH") == []


class TestRestart:
    def test_writes_the_annotation_and_waits_for_another_revision(
        self, crucible: Any, server: Any, make_plugin: Any, make_ready: Any
    ) -> None:
        old, new = make_plugin(status=make_ready()), make_plugin(status=make_ready(revision="r2"))
        server.answer("GET", f"{PLUGINS}/demo", old, old, new)
        server.answer("PATCH", f"{PLUGINS}/demo", old)
        ended = crucible("restart", "demo", "--wait")
        assert ended.out.splitlines() == [
            "plugin.crucible.dev/demo restarted",
            "plugin.crucible.dev/demo ready",
        ]
        (asked,) = server.said("PATCH")
        assert asked.kind == "application/merge-patch+json"
        (stamp,) = asked.body["metadata"]["annotations"].values()
        assert stamp.endswith("Z")

    def test_says_when_a_restart_cannot_help(self, crucible: Any, server: Any, make_plugin: Any) -> None:
        server.answer("GET", f"{PLUGINS}/demo", make_plugin(status={"phase": "Refused"}))
        server.answer("GET", f"{PLUGINS}/asleep", make_plugin("asleep", spec={"suspend": True}))
        assert "a restart does not change" in crucible("restart", "demo").err
        assert "spec.suspend" in crucible("restart", "asleep").err
        assert server.said("PATCH") == []
