"""What the chart makes of the broker: who reaches it, what it may, and where the operator finds it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import yaml
from release import BUS, NAMESPACE, REPLICATED, REPOSITORY, Object, of_kind, pods
from test_rights import rights

from crucible import outside
from crucible.backbone import secrets
from crucible.backbone.secrets import Wanted, hosts
from crucible.core import natsconfig
from crucible.core.doors import BUS_PORT, CALLERS_PORT
from crucible.model.backbone import PORT
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


def test_broker_and_operator_may_find_each_other_in_their_own_namespace_alone(release: Release) -> None:
    authority = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [marks.AUTHORITY]}
    wanted: dict[str, tuple[str, list[Object]]] = {
        f"{NAME}-service": (
            "crucible",
            [
                {"apiGroups": [""], "resources": ["services"], "resourceNames": [NAME], "verbs": ["get"]},
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": ["list", "watch"],
                },
                {**authority, "verbs": ["get"]},
            ],
        ),
        f"{NAME}-operator": (
            NAME,
            [
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
                {**authority, "verbs": ["create", "patch"]},
            ],
        ),
    }
    for values in (PLAIN, {**PLAIN, "watchNamespaces": ["one"]}):
        objects = release.objects(values)
        for name, (account, rules) in wanted.items():
            role, binding = named(objects, "Role", name), named(objects, "RoleBinding", name)
            assert role["rules"] == rules
            assert {one["metadata"]["namespace"] for one in (role, binding)} == {NAMESPACE}
            assert [one["name"] for one in binding["subjects"]] == [account]
    (broker,) = named(release.objects(PLAIN), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert f"--operator={NAMESPACE}/crucible" in broker["args"]


def test_the_operators_pods_alone_bear_its_label_and_reach_the_port_by_it(release: Release) -> None:
    objects = release.objects(BUS)
    labels = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
        for one in of_kind(objects, "Deployment")
    }
    bear = [name for name, each in labels.items() if marks.OPERATOR in each]
    assert bear == ["crucible"]
    _, operators = (
        rule
        for rule in named(objects, "NetworkPolicy")["spec"]["ingress"]
        if BUS_PORT in {port["port"] for port in rule["ports"]}
    )
    (peer,) = operators["from"]
    assert peer.keys() == {"podSelector"}, "of the release's own namespace"
    assert peer["podSelector"]["matchLabels"][marks.OPERATOR] == "true"
    assert peer["podSelector"]["matchLabels"].items() <= labels["crucible"].items()
    out = [
        rule
        for rule in named(objects, "NetworkPolicy", "crucible")["spec"]["egress"]
        if BUS_PORT in {port["port"] for port in rule["ports"]}
    ]
    ((peer,),) = (rule["to"] for rule in out)
    assert peer["podSelector"]["matchLabels"].items() <= labels[NAME].items()
    plain = named(release.objects(), "NetworkPolicy", "crucible")["spec"]["egress"]
    assert BUS_PORT not in {port["port"] for rule in plain for port in rule["ports"]}


def test_only_plugins_on_the_bus_reach_its_port_and_it_reaches_the_api_server_alone(release: Release) -> None:
    for values in (PLAIN, {**PLAIN, "watchNamespaces": ["one", "two"]}):
        policy = named(release.objects(values), "NetworkPolicy")
        rule, _ = (
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


def test_nobody_comes_from_outside_unless_it_says_where_and_then_by_the_loopback_alone(
    release: Release,
) -> None:
    shut = release.objects(PLAIN)
    assert "callers" not in json.dumps(shut)
    objects = release.objects({"bus": {"enabled": True, "callers": {"namespaces": ["one", "*"]}}})
    (broker,) = named(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert [each for each in broker["args"] if "callers" in each] == ["--callers=one", "--callers=*"]
    (port,) = (each for each in broker["ports"] if each["name"] == outside.PORT)
    assert port["containerPort"] == CALLERS_PORT
    spec = named(objects, "Deployment")["spec"]["template"]["spec"]
    assert spec["hostNetwork"] is False, "its loopback is its own"
    assert len(spec["containers"]) == 1, "and nobody else is on it"
    ports = [port for one in of_kind(objects, "Service") for port in one["spec"]["ports"]]
    assert not [port for port in ports if CALLERS_PORT in port.values() or "callers" in port.values()]
    for policy in of_kind(objects, "NetworkPolicy"):
        rules = (*policy["spec"].get("ingress", ()), *policy["spec"].get("egress", ()))
        assert CALLERS_PORT not in {port["port"] for rule in rules for port in rule.get("ports", ())}
    labels = named(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    wanted = dict(each.split("=") for each in outside.BROKERS.split(","))
    assert wanted.items() <= labels.items()


def test_who_may_come_from_outside_is_for_people_to_say(release: Release) -> None:
    for values in (BUS, {**BUS, "watchNamespaces": ["one", "two"]}):
        objects = release.objects(values)
        role = named(objects, "Role", f"{NAME}-caller")
        assert role["metadata"]["namespace"] == NAMESPACE
        assert rights(role) == {
            ("", "pods"): {"list"},
            ("", "pods/portforward"): {"get", "create"},
            ("", "configmaps"): {"get"},
        }
        assert role["rules"][-1]["resourceNames"] == [marks.AUTHORITY]
        bound = [
            one["roleRef"]["name"]
            for kind in ("RoleBinding", "ClusterRoleBinding")
            for one in of_kind(objects, kind)
        ]
        assert f"{NAME}-caller" not in bound
    refused = release.refusal({**BUS, "watchNamespaces": ["one"]})
    assert "bus.callers.namespaces: plugins of two are not served" in refused


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


def test_replicas_meet_at_a_server_that_only_they_reach_and_nobody_needs_a_right_to_secrets(
    release: Release,
) -> None:
    objects = release.objects(REPLICATED)
    deployment, server = named(objects, "Deployment"), named(objects, "StatefulSet", f"{NAME}-nats")
    assert deployment["spec"]["replicas"] == 3
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    broker = deployment["spec"]["template"]["spec"]
    assert {each["topologyKey"] for each in broker["topologySpreadConstraints"]} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }
    service = named(objects, "Service", f"{NAME}-nats")
    args = broker["containers"][0]["args"]
    assert f"--backbone=tls://{NAME}-nats.{NAMESPACE}.svc:{PORT}" in args
    assert f"{NAME}-nats.{NAMESPACE}.svc" in hosts(Wanted(NAME, NAMESPACE, timedelta(1)))
    shown = {each["secret"]["secretName"] for each in broker["volumes"] if "secret" in each}
    (operator,) = named(objects, "Deployment", "crucible")["spec"]["template"]["spec"]["containers"]
    assert "--stores" in operator["args"]
    assert "--stores" not in json.dumps(named(release.objects(PLAIN), "Deployment", "crucible"))
    pod = server["spec"]["template"]["spec"]
    shown |= {each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each}
    assert shown == {f"{NAME}-{end}" for end in (secrets.BUS, secrets.CLIENT, secrets.SERVER)}
    assert "secrets" not in json.dumps(
        [one["rules"] for one in objects if one["kind"] in {"Role", "ClusterRole"}]
    )
    labels = server["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    policy = named(objects, "NetworkPolicy", f"{NAME}-nats")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["egress"] == []
    (rule,) = policy["ingress"]
    assert [port["port"] for port in rule["ports"]] == [PORT]
    (peer,) = rule["from"]
    assert (
        peer["podSelector"]["matchLabels"].items()
        <= deployment["spec"]["template"]["metadata"]["labels"].items()
    )
    for other in ("crucible", "crucible-egress"):
        theirs = named(objects, "Deployment", other)["spec"]["template"]["metadata"]["labels"]
        assert not peer["podSelector"]["matchLabels"].items() <= theirs.items()
    out = named(objects, "NetworkPolicy")["spec"]["egress"]
    (to,) = (each["to"][0] for each in out if each["ports"][0]["port"] == PORT)
    assert to["podSelector"]["matchLabels"].items() <= labels.items()
    settings = json.loads(named(objects, "ConfigMap", f"{NAME}-nats")["data"]["nats.json"])
    assert settings == json.loads(natsconfig.replicated()), "the tests of brokers run a server with these"
    nats, reload = pod["containers"]
    places = {each["mountPath"] for each in nats["volumeMounts"]}
    assert places == {"/settings", "/tls", settings["jetstream"]["store_dir"]}
    assert reload["args"] == ["bus", "reload", "--certificates=/tls"]
    assert pod["shareProcessNamespace"] is True
    (claim,) = server["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"


def test_the_examples_of_the_docs_are_what_they_say(release: Release) -> None:
    values = yaml.safe_load((REPOSITORY / "docs/examples/kubernetes/replicated-bus.yaml").read_text())
    objects = release.objects(values)
    assert named(objects, "Deployment")["spec"]["replicas"] == 3
    assert of_kind(objects, "StatefulSet")
    values = yaml.safe_load((REPOSITORY / "docs/examples/kubernetes/outside-bus.yaml").read_text())
    objects = release.objects(values)
    (broker,) = named(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert "--callers=team-a" in broker["args"]


def test_a_server_of_ones_own_takes_the_place_of_ours(release: Release) -> None:
    values = {"bus": {"enabled": True, "replicas": 2, "nats": {"url": "tls://nats.example.org:5222"}}}
    values["bus"]["nats"] |= {"secretName": "mine", "copies": 3, "to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}
    objects = release.objects(values)
    assert not of_kind(objects, "StatefulSet")
    pod = named(objects, "Deployment")["spec"]["template"]["spec"]
    assert {"--backbone=tls://nats.example.org:5222", "--copies=3"} <= set(pod["containers"][0]["args"])
    assert "mine" in {each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each}
    out = named(objects, "NetworkPolicy")["spec"]["egress"]
    assert {"ports": [{"port": 5222, "protocol": "TCP"}], "to": values["bus"]["nats"]["to"]} in out


def test_one_broker_can_be_given_a_certificate_that_outlives_it(release: Release) -> None:
    pod = named(release.objects({"bus": {"enabled": True, "secretName": "mine"}}), "Deployment")["spec"][
        "template"
    ]
    assert "--certificates=/certificates" in pod["spec"]["containers"][0]["args"]
    assert pod["spec"]["volumes"][1] == {
        "name": "certificates",
        "secret": {"secretName": "mine", "defaultMode": 0o440},
    }
