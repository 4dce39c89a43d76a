"""What the chart makes of the broker: who reaches it, what it may, and where the operator finds it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from release import BUS, NAMESPACE, Object, of_kind, pods
from test_rights import rights

from crucible.core.doors import BUS_PORT
from crucible.model.door import Door
from crucible.runtimes.kubernetes import marks

if TYPE_CHECKING:
    from release import Release

NAME = "crucible-bus"
PLAIN: Object = {"bus": {"enabled": True}}
RIGHTS = {
    ("", "pods"): {"get", "list", "watch"},
    ("crucible.dev", "plugins"): {"list", "watch"},
    ("", "events"): {"create"},
    ("", "configmaps"): {"create", "patch"},
}


def named(objects: list[Object], kind: str, name: str = NAME) -> Object:
    (found,) = (one for one in of_kind(objects, kind) if one["metadata"]["name"] == name)
    return found


def test_there_is_none_unless_it_is_asked_for_and_then_the_operator_is_told(release: Release) -> None:
    assert f'"{NAME}"' not in json.dumps(release.objects())
    objects = release.objects(PLAIN)
    (operator,) = named(objects, "Deployment", "crucible")["spec"]["template"]["spec"]["containers"]
    assert f"--bus={NAMESPACE}/{NAME}" in operator["args"]


def test_it_may_see_pods_and_plugins_and_write_one_configmap_by_name_and_no_more(release: Release) -> None:
    objects = release.objects(PLAIN)
    role = named(objects, "ClusterRole", f"{NAMESPACE}-crucible-bus")
    assert rights(role) == RIGHTS
    (rule,) = (one for one in role["rules"] if one["resources"] == ["configmaps"])
    assert rule["resourceNames"] == [marks.AUTHORITY]
    held = release.objects({**PLAIN, "watchNamespaces": ["one"]})
    found = [one for one in of_kind(held, "Role") if one["metadata"]["namespace"] == "one"]
    assert RIGHTS in [rights(one) for one in found]
    assert not [one for one in of_kind(held, "ClusterRole") if one["metadata"]["name"].endswith("-bus")]
    service = named(objects, "Role", f"{NAME}-service")
    assert service["rules"] == [
        {"apiGroups": [""], "resources": ["services"], "resourceNames": [NAME], "verbs": ["get"]}
    ]
    binding = named(objects, "RoleBinding", f"{NAME}-service")
    assert [one["name"] for one in binding["subjects"]] == ["crucible"], "the operator asks for the address"


def test_only_plugins_on_the_bus_reach_its_port_and_it_reaches_the_api_server_alone(release: Release) -> None:
    for values in (PLAIN, {**PLAIN, "watchNamespaces": ["one", "two"]}):
        policy = named(release.objects(values), "NetworkPolicy")
        (rule,) = (
            each for each in policy["spec"]["ingress"] if BUS_PORT in {port["port"] for port in each["ports"]}
        )
        (peer,) = rule["from"]
        assert peer["podSelector"] == {
            "matchLabels": {marks.MANAGED_BY: marks.MANAGER, marks.DOOR_LABELS[Door.BUS]: "true"}
        }
        extent = peer["namespaceSelector"]
        assert extent == {} if values is PLAIN else extent["matchExpressions"][0]["values"] == ["one", "two"]
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    dns, server = named(release.objects(BUS), "NetworkPolicy")["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert server["to"] == [{"ipBlock": {"cidr": cidr}} for cidr in ("10.0.0.1/32", "fd00::1/128")]


def test_its_service_selector_budget_and_pods_belong_together(release: Release) -> None:
    objects = release.objects(BUS)
    service, deployment = named(objects, "Service"), named(objects, "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}, "never two at once"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["clusterIP"] == "10.96.0.78"
    assert [(port["port"], port["targetPort"]) for port in service["spec"]["ports"]] == [(BUS_PORT, BUS_PORT)]
    for other in ("crucible", "crucible-egress"):
        pod = named(objects, "Deployment", other)["spec"]["template"]["metadata"]["labels"]
        assert not service["spec"]["selector"].items() <= pod.items()
        theirs = named(objects, "Deployment", other)["spec"]["selector"]["matchLabels"]
        assert not theirs.items() <= labels.items()
    budget = named(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    assert budget.items() <= labels.items()
    monitor = named(objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert monitor.items() <= named(objects, "Service", f"{NAME}-metrics")["metadata"]["labels"].items()


def test_only_it_and_the_operator_have_a_token(release: Release) -> None:
    objects = release.objects(PLAIN)
    holders = [pod for pod in pods(objects) if pod["automountServiceAccountToken"]]
    assert sorted(pod["serviceAccountName"] for pod in holders) == ["crucible", NAME]
    assert all(one["automountServiceAccountToken"] is False for one in of_kind(objects, "ServiceAccount"))


def test_the_releases_test_tries_to_come_in_as_a_stranger(release: Release) -> None:
    (test,) = of_kind(release.objects(PLAIN), "Pod")
    (container,) = test["spec"]["containers"]
    compile(container["command"][-1], "test", "exec")
    assert f'heard("{NAME}", {BUS_PORT})' in container["command"][-1]
