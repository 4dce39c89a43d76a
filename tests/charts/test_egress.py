"""What the chart makes of the egress proxy: who reaches it, what it may, and where the operator finds it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from release import EGRESS, NAMESPACE, Object, of_kind, pods
from test_rights import rights

from crucible.core.doors import PROXY_PORT
from crucible.model.door import Door
from crucible.runtimes.kubernetes import marks

if TYPE_CHECKING:
    from release import Release

NAME = "crucible-egress"
PROXY = {("", "pods"): {"get", "list", "watch"}, ("crucible.dev", "plugins"): {"list", "watch"}}
TELLS = {("", "events"): {"create"}}
PLAIN: Object = {"egress": {"enabled": True}}


def named(objects: list[Object], kind: str, name: str = NAME) -> Object:
    (found,) = (one for one in of_kind(objects, kind) if one["metadata"]["name"] == name)
    return found


def test_there_is_none_unless_it_is_asked_for_and_then_the_operator_is_told(release: Release) -> None:
    assert NAME not in json.dumps(release.objects())
    objects = release.objects(PLAIN)
    (operator,) = named(objects, "Deployment", "crucible")["spec"]["template"]["spec"]["containers"]
    assert f"--egress={NAMESPACE}/{NAME}" in operator["args"]


def test_it_may_see_pods_and_plugins_and_tell_and_no_more(release: Release) -> None:
    objects = release.objects(PLAIN)
    role = named(objects, "ClusterRole", f"{NAMESPACE}-crucible-egress")
    assert rights(role) == PROXY | TELLS
    held = release.objects({**PLAIN, "watchNamespaces": ["one"]})
    found = [one for one in of_kind(held, "Role") if one["metadata"]["namespace"] == "one"]
    assert PROXY | TELLS in [rights(one) for one in found]
    assert not [one for one in of_kind(held, "ClusterRole") if "egress" in one["metadata"]["name"]]
    service = named(objects, "Role", f"{NAME}-service")
    assert service["rules"] == [
        {"apiGroups": [""], "resources": ["services"], "resourceNames": [NAME], "verbs": ["get"]}
    ]
    binding = named(objects, "RoleBinding", f"{NAME}-service")
    assert [one["name"] for one in binding["subjects"]] == ["crucible"], "the operator asks for the address"


def test_only_plugins_with_a_way_out_reach_its_port(release: Release) -> None:
    for values in (PLAIN, {**PLAIN, "watchNamespaces": ["one", "two"]}):
        policy = named(release.objects(values), "NetworkPolicy")
        (rule,) = (
            each
            for each in policy["spec"]["ingress"]
            if PROXY_PORT in {port["port"] for port in each["ports"]}
        )
        (peer,) = rule["from"]
        assert peer["podSelector"] == {
            "matchLabels": {marks.MANAGED_BY: marks.MANAGER, marks.DOOR_LABELS[Door.EGRESS]: "true"}
        }
        extent = peer["namespaceSelector"]
        assert extent == {} if values is PLAIN else extent["matchExpressions"][0]["values"] == ["one", "two"]
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_where_it_may_connect_itself_can_be_held_to_some(release: Release) -> None:
    assert named(release.objects(PLAIN), "NetworkPolicy")["spec"]["egress"] == [{}]
    dns, server, outside = named(release.objects(EGRESS), "NetworkPolicy")["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert server["to"] == [{"ipBlock": {"cidr": cidr}} for cidr in ("10.0.0.1/32", "fd00::1/128")]
    assert outside == {"to": EGRESS["egress"]["to"]}


def test_its_service_selector_budget_and_pods_belong_together(release: Release) -> None:
    objects = release.objects(EGRESS)
    service, deployment = named(objects, "Service"), named(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["clusterIP"] == "10.96.0.77"
    assert [(port["port"], port["targetPort"]) for port in service["spec"]["ports"]] == [(3128, 3128)]
    assert not service["spec"]["selector"].items() <= _labels(objects, "crucible").items()
    assert not _selector(objects, "crucible").items() <= labels.items(), "the operator's selectors miss it"
    budget = named(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    assert budget.items() <= labels.items()
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert "--replicas=3" in container["args"]
    monitor = named(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert monitor.items() <= named(objects, "Service", f"{NAME}-metrics")["metadata"]["labels"].items()


def test_only_it_and_the_operator_have_a_token(release: Release) -> None:
    objects = release.objects(PLAIN)
    holders = [pod for pod in pods(objects) if pod["automountServiceAccountToken"]]
    assert sorted(pod["serviceAccountName"] for pod in holders) == ["crucible", NAME]
    assert all(one["automountServiceAccountToken"] is False for one in of_kind(objects, "ServiceAccount"))


def test_the_releases_test_tries_to_get_out_as_a_stranger(release: Release) -> None:
    (test,) = of_kind(release.objects(PLAIN), "Pod")
    (container,) = test["spec"]["containers"]
    compile(container["command"][-1], "test", "exec")
    assert f'heard("{NAME}", {PROXY_PORT})' in container["command"][-1]


def _labels(objects: list[Object], name: str) -> dict[str, str]:
    return dict(named(objects, "Deployment", name)["spec"]["template"]["metadata"]["labels"])


def _selector(objects: list[Object], name: str) -> dict[str, str]:
    return dict(named(objects, "Deployment", name)["spec"]["selector"]["matchLabels"])
