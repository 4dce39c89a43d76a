"""The rules that the API server checks for us, run as the CEL they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cel
import pytest
from release import CHART, NAMESPACE, Object, helm, of_kind

if TYPE_CHECKING:
    from release import Release

OPERATOR = f"system:serviceaccount:{NAMESPACE}:crucible"
ALICE = "alice"


def plugin(**meta: Any) -> Object:
    return {"metadata": {"name": "a", **meta}, "spec": {"source": {"inline": {"a": "b"}}}}


def pod(**labels: str) -> Object:
    return {"metadata": {"name": "a", "labels": labels}}


def refusals(
    policy: Object, new: Object, old: Object | None = None, user: str = ALICE, namespace: str = "one"
) -> list[str]:
    """Judge a write as an API server does, and return the messages of the rules that do not hold."""
    spec = policy["spec"]
    context: Object = {
        "object": new,
        "oldObject": old,
        "request": {
            "operation": "CREATE" if old is None else "UPDATE",
            "userInfo": {"username": user},
            "namespace": namespace,
        },
    }
    if not all(cel.evaluate(one["expression"], context) for one in spec["matchConditions"]):
        return []
    context["variables"] = {}
    for one in spec.get("variables", ()):
        context["variables"][one["name"]] = cel.evaluate(one["expression"], context)
    return [one["message"] for one in spec["validations"] if not cel.evaluate(one["expression"], context)]


@pytest.fixture
def policies(release: Release) -> dict[str, Object]:
    objects = release.objects(
        {"admission": {"policies": "always", "allowedNamespaces": ["one", "kube-system"]}}
    )
    found = of_kind(objects, "ValidatingAdmissionPolicy")
    return {one["metadata"]["name"].rpartition("-")[2]: one for one in found}


PLUGINS: dict[str, tuple[Object, Object, str]] = {
    "plain": (plugin(), {}, ""),
    "labels": (plugin(labels={"team": "a", "crucible-dev/folder": "b"}), {}, ""),
    "reserved-label": (plugin(labels={"crucible.dev/revision": "x"}), {}, "are the operator's"),
    "reserved-label-by-operator": (plugin(labels={"crucible.dev/revision": "x"}), {"user": OPERATOR}, ""),
    "restart": (plugin(annotations={"crucible.dev/restarted-at": "now"}), {}, ""),
    "reserved-annotation": (plugin(annotations={"crucible.dev/granted": "all"}), {}, "only restarted-at"),
    "path": ({**plugin(), "spec": {"source": {"path": "./a"}}}, {}, "use inline or image"),
    "denied": (plugin(), {"namespace": "kube-system"}, "no Plugin may be in kube-system"),
    "ours": (plugin(), {"namespace": NAMESPACE}, "no Plugin may be in"),
    "not-allowed": (plugin(), {"namespace": "two"}, "Plugins may only be in one, kube-system"),
    "denied-but-there": (plugin(), {"namespace": "kube-system", "old": plugin()}, ""),
    "going": (
        plugin(labels={"crucible.dev/x": "y"}, deletionTimestamp="now"),
        {"old": plugin(labels={"crucible.dev/x": "y"})},
        "",
    ),
}


@pytest.mark.parametrize(("new", "more", "words"), PLUGINS.values(), ids=PLUGINS)
def test_plugins(policies: dict[str, Object], new: Object, more: Object, words: str) -> None:
    found = refusals(policies["plugins"], new, **more)
    assert any(words in message for message in found) if words else found == []


OURS: Object = {"metadata": {"name": "a", "labels": {"crucible.dev/plugin": "a", "app": "b"}}}
OWNERS = [{"apiVersion": "crucible.dev/v1alpha1", "kind": "Plugin", "name": "a", "uid": "u"}]
OWNED: Object = {"metadata": {"name": "a-0-1", "ownerReferences": OWNERS}}
OTHERS = [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a", "uid": "u"}]
LINED: Object = {
    "metadata": {"name": "a", "labels": {"crucible.dev/operator": "true"}},
    "spec": {"serviceAccountName": "crucible"},
}
UNLINED: Object = {"metadata": {"name": "a"}, "spec": LINED["spec"]}
REPLICAS: Object = {"user": "system:serviceaccount:kube-system:replicaset-controller"}
PODS: dict[str, tuple[Object, Object, bool]] = {
    "plain": (pod(app="a"), {}, True),
    "unlabelled": ({"metadata": {"name": "a"}}, {}, True),
    "posing": (OURS, {}, False),
    "made": (OURS, {"user": OPERATOR}, True),
    "untouched": (OURS, {"old": OURS, "user": "system:node:a"}, True),
    "other-label": ({"metadata": {"labels": {"crucible.dev/plugin": "a"}}}, {"old": OURS}, True),
    "joined": (OURS, {"old": pod(app="a")}, False),
    "changed": ({"metadata": {"labels": {"crucible.dev/plugin": "b"}}}, {"old": OURS}, False),
    "escaped": (pod(app="a"), {"old": OURS}, False),
    "forged": (OWNED, {}, False),
    "owned": (OWNED, {"user": OPERATOR}, True),
    "still-owned": (OWNED, {"old": OWNED}, True),
    "orphaned": ({"metadata": {"name": "a-0-1"}}, {"old": OWNED}, True),
    "adopted": (OWNED, {"old": {"metadata": {"name": "a-0-1"}}}, False),
    "of-others": ({"metadata": {"name": "a", "ownerReferences": OTHERS}}, {}, True),
    "operators": (LINED, {**REPLICAS, "namespace": NAMESPACE}, True),
    "operators-elsewhere": (LINED, {**REPLICAS, "namespace": "one"}, False),
    "operators-label": ({**LINED, "spec": {"serviceAccountName": "other"}}, {"namespace": NAMESPACE}, False),
    "operators-other-label": ({**OURS, "spec": LINED["spec"]}, {"namespace": NAMESPACE}, False),
    "operators-stripped": (UNLINED, {"old": LINED, "namespace": NAMESPACE}, False),
    "stripped": ({"metadata": {"name": "a"}}, {"old": OURS}, False),
}


@pytest.mark.parametrize(("new", "more", "taken"), PODS.values(), ids=PODS)
def test_pods(policies: dict[str, Object], new: Object, more: Object, taken: bool) -> None:
    assert (refusals(policies["pods"], new, **more) == []) is taken


@pytest.mark.parametrize(("action", "word"), [("deny", "Deny"), ("warn", "Warn"), ("audit", "Audit")])
def test_each_policy_is_bound_with_the_action_chosen(release: Release, action: str, word: str) -> None:
    objects = release.objects({"admission": {"policies": "always", "action": action}})
    names = {one["metadata"]["name"] for one in of_kind(objects, "ValidatingAdmissionPolicy")}
    bindings = of_kind(objects, "ValidatingAdmissionPolicyBinding")
    assert {one["spec"]["policyName"] for one in bindings} == names
    assert all(one["spec"]["validationActions"] == [word] for one in bindings)
    assert all("matchResources" not in one["spec"] for one in bindings)


def test_held_to_namespaces_it_judges_only_there_and_pods_where_the_operator_is(release: Release) -> None:
    objects = release.objects({"watchNamespaces": ["one"], "admission": {"policies": "always"}})
    for one in of_kind(objects, "ValidatingAdmissionPolicyBinding"):
        (expression,) = one["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
        pods = one["spec"]["policyName"].endswith("-pods")
        assert expression["values"] == (["one", NAMESPACE] if pods else ["one"])


@pytest.mark.parametrize(
    ("policies", "offered", "made"),
    [
        ("auto", (), True),
        ("auto", ("v1/Pod",), False),
        ("auto", ("v1/Pod", "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"), True),
        ("always", ("v1/Pod",), True),
        ("never", (), False),
    ],
)
def test_policies_are_made_where_the_server_has_them(
    policies: str, offered: tuple[str, ...], made: bool
) -> None:
    asked = [word for name in offered for word in ("--api-versions", name)]
    ran = helm("template", "crucible", str(CHART), *asked, values={"admission": {"policies": policies}})
    assert ("kind: ValidatingAdmissionPolicy\n" in ran.out) is made
