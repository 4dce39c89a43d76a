"""What the operator may do in a cluster: exactly this."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml
from release import NAMESPACE, Object, of_kind

if TYPE_CHECKING:
    from release import Release

READ = {"get", "list", "watch"}
MADE = READ | {"create", "patch", "delete"}
# One line for each thing it does. A right that is not used here has no place in the chart.
OPERATOR = {
    ("crucible.dev", "plugins"): READ | {"patch"},
    ("crucible.dev", "plugins/status"): {"patch"},
    ("crucible.dev", "plugins/finalizers"): {"update"},
    ("crucible.dev", "pluginrevisions"): {"get", "create", "delete"},
    ("", "pods"): MADE,
    ("", "configmaps"): {"get", "create", "patch", "delete"},
    ("", "services"): MADE,
    ("networking.k8s.io", "networkpolicies"): MADE,
    ("policy", "poddisruptionbudgets"): MADE,
    ("", "events"): {"create"},
    ("metrics.k8s.io", "pods"): {"get"},
}
# Only where it may look at the whole cluster anyway.
OVERALL = {
    ("apiextensions.k8s.io", "customresourcedefinitions"): {"list", "watch"},
    ("", "nodes"): {"list"},
}
LEASE = {("coordination.k8s.io", "leases"): {"create", "get", "update"}}
NAMESPACED = {"watchNamespaces": ["one", "two"]}


def rights(role: Object) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


def test_over_a_whole_cluster_it_may_do_this_and_no_more(release: Release) -> None:
    objects = release.objects({"rbac": {"aggregate": False}})
    (role,), (binding,) = of_kind(objects, "ClusterRole"), of_kind(objects, "ClusterRoleBinding")
    assert rights(role) == OPERATOR | OVERALL
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "crucible", "namespace": NAMESPACE}]
    (lease,) = of_kind(objects, "Role")
    assert rights(lease) == LEASE


def test_held_to_namespaces_it_has_no_right_in_any_other(release: Release) -> None:
    objects = release.objects({**NAMESPACED, "rbac": {"aggregate": False}})
    assert not of_kind(objects, "ClusterRole")
    assert not of_kind(objects, "ClusterRoleBinding")
    roles = {role["metadata"]["namespace"]: role for role in of_kind(objects, "Role")}
    bindings = {one["metadata"]["namespace"]: one for one in of_kind(objects, "RoleBinding")}
    assert set(roles) == set(bindings) == {"one", "two", NAMESPACE}
    assert rights(roles["one"]) == rights(roles["two"]) == OPERATOR
    assert rights(roles[NAMESPACE]) == LEASE
    for place, binding in bindings.items():
        assert binding["roleRef"]["kind"] == "Role"
        assert binding["roleRef"]["name"] == roles[place]["metadata"]["name"]


def test_its_own_namespace_may_be_one_of_them(release: Release) -> None:
    objects = release.objects({"watchNamespaces": [NAMESPACE]})
    found = [rights(role) for role in of_kind(objects, "Role")]
    assert OPERATOR in found
    assert LEASE in found


@pytest.mark.parametrize("values", [{}, NAMESPACED], ids=["cluster", "namespaces"])
def test_no_right_is_a_wildcard_a_secret_or_a_way_to_more(release: Release, values: Object) -> None:
    for role in (*of_kind(release.objects(values), "Role"), *of_kind(release.objects(values), "ClusterRole")):
        for (group, resource), verbs in rights(role).items():
            assert "*" not in {group, resource, *verbs}
            assert verbs.isdisjoint({"escalate", "bind", "impersonate", "approve", "sign"})
            assert resource.split("/")[0] not in {"secrets", "serviceaccounts", "tokenreviews"}
            assert resource != "nodes" or verbs == {"list"}
            assert resource not in {
                "nodes/proxy",
                "nodes/status",
                "pods/exec",
                "pods/attach",
                "pods/portforward",
                "pods/ephemeralcontainers",
            }
            assert group not in {"rbac.authorization.k8s.io", "certificates.k8s.io"}
            assert group != "apiextensions.k8s.io" or verbs <= READ


def test_the_lease_is_held_to_its_name_wherever_that_can_be(release: Release) -> None:
    (role,) = of_kind(release.objects(), "Role")
    unnamed = [rule for rule in role["rules"] if "resourceNames" not in rule]
    assert [rule["verbs"] for rule in unnamed] == [["create"]]


def test_people_may_see_or_change_plugins_but_never_their_status(release: Release) -> None:
    roles = {
        role["metadata"]["name"].rpartition("-")[2]: role
        for role in of_kind(release.objects(), "ClusterRole")
    }
    view, edit = rights(roles["view"]), rights(roles["edit"])
    assert set().union(*view.values()) == READ
    assert ("crucible.dev", "plugins/status") not in edit
    assert {group for group, _ in (*view, *edit)} == {"crucible.dev"}
    aggregated = {
        name: {label.rpartition("-")[2] for label in role["metadata"]["labels"] if "aggregate-to" in label}
        for name, role in roles.items()
    }
    assert aggregated["view"] == {"view", "edit", "admin"}
    assert aggregated["edit"] == {"edit", "admin"}


def test_none_is_made_where_someone_else_makes_them(release: Release) -> None:
    objects = release.objects({"rbac": {"create": False}})
    assert "rbac.authorization.k8s.io" not in yaml.safe_dump(objects)
