"""What the chart makes: valid for every server it names, restricted, and the same definition as crds/."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import kubernetes.client
import kubernetes_validate
import pytest
import yaml
from release import (
    BUS,
    CHART,
    EGRESS,
    EVERYTHING,
    NAMESPACE,
    NOTHING,
    REPLICATED,
    REPOSITORY,
    Object,
    helm,
    of_kind,
    pods,
)

from crucible import __version__
from crucible.cli.volumes import claim_volumes
from crucible.model.crd import plugin_crd
from crucible.model.revision import revision_crd
from crucible.model.volume import ClaimVolume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from release import Release

VERSIONS = tuple(f"1.{minor}.0" for minor in range(30, 37))
# Kinds of the Prometheus operator, whose models no client of Kubernetes has.
FOREIGN = {"ServiceMonitor", "PrometheusRule"}


CHOSEN = {"plain": {}, "everything": EVERYTHING, "egress": EGRESS, "bus": REPLICATED, "nothing": NOTHING}


def matrix() -> Iterator[Any]:
    """Every choice that makes other objects, with every other."""
    for extent, replicas, (name, chosen) in itertools.product(([], ["one", "two"]), (1, 2), CHOSEN.items()):
        values = {**chosen, "watchNamespaces": extent, "replicas": replicas}
        yield pytest.param(values, id=f"{name}-{replicas}-{'some' if extent else 'all'}")


EVERY_CHOICE = pytest.mark.parametrize("values", tuple(matrix()))


def test_lint_has_nothing_to_say() -> None:
    ran = helm("lint", "--strict", str(CHART))
    assert ran.code == 0, ran.out
    assert "[WARNING]" not in ran.out


@EVERY_CHOICE
def test_every_object_is_what_its_kind_allows(release: Release, values: Object) -> None:
    objects = release.objects(values)
    assert objects
    for one in objects:
        if one["kind"] not in FOREIGN:
            # The official client's models forbid every name they do not know.
            getattr(kubernetes.client, f"V1{one['kind']}").model_validate(one)


@EVERY_CHOICE
def test_names_are_given_once_and_labels_tell_whose_it_is(release: Release, values: Object) -> None:
    objects = release.objects(values)
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names))
    for one in objects:
        assert one["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == "crucible"


@pytest.mark.parametrize("kube", VERSIONS)
def test_it_renders_the_same_for_every_version_it_supports(release: Release, kube: str) -> None:
    values = {**EVERYTHING, "replicas": 2}
    assert release.objects(values, kube) == release.objects(values)


@pytest.mark.parametrize("kube", VERSIONS)
def test_every_object_satisfies_the_schemas_of_that_version(release: Release, kube: str) -> None:
    for values in ({}, {**EVERYTHING, "replicas": 2, "watchNamespaces": ["one"]}, REPLICATED):
        for one in release.objects(values, kube):
            if one["kind"] not in FOREIGN:
                kubernetes_validate.validate(one, kube.removesuffix(".0"), strict=True)


def test_older_servers_are_refused() -> None:
    ran = helm("template", "crucible", str(CHART), "--kube-version", "1.29.9")
    assert ran.code != 0
    assert "kubeVersion: >=1.30.0-0 which is incompatible" in ran.err


def is_on_backbone(pod: Object) -> bool:
    """Say whether it is a broker's or NATS's, to which the kubelet shows certificates."""
    return pod["containers"][0]["name"] in {"broker", "nats"}


@EVERY_CHOICE
def test_every_pod_is_restricted(release: Release, values: Object) -> None:
    found = pods(release.objects(values))
    assert found
    for pod in found:
        assert not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC", "initContainers"))
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 10_000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        kinds = {"name", "emptyDir", "secret", "configMap"} if is_on_backbone(pod) else {"name", "emptyDir"}
        assert all(set(volume) <= kinds for volume in pod.get("volumes", ()))
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }
            for kind in ("requests", "limits"):
                assert set(container["resources"][kind]) == {"cpu", "memory", "ephemeral-storage"}
            assert not any("hostPort" in port for port in container.get("ports", ()))


def test_only_the_operators_pod_has_a_token(release: Release) -> None:
    objects = release.objects()
    (deployment,), (test,) = of_kind(objects, "Deployment"), of_kind(objects, "Pod")
    assert deployment["spec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert test["spec"]["automountServiceAccountToken"] is False
    assert of_kind(objects, "ServiceAccount")[0]["automountServiceAccountToken"] is False


def test_no_object_is_a_secret_and_none_reads_one(release: Release) -> None:
    for values in ({}, EVERYTHING):
        objects = release.objects(values)
        assert not of_kind(objects, "Secret")
        assert "secretKeyRef" not in yaml.safe_dump(objects)


def test_the_definition_is_the_one_in_crds() -> None:
    for ours in (REPOSITORY / "crds").iterdir():
        copied = (CHART / "files/crds" / ours.name).read_bytes()
        assert copied == ours.read_bytes(), "run: make generate"
    assert {path.name for path in (CHART / "files/crds").iterdir()} == {
        path.name for path in (REPOSITORY / "crds").iterdir()
    }


def test_the_definition_is_rendered_whole_upgraded_and_kept(release: Release) -> None:
    found = of_kind(release.objects(), "CustomResourceDefinition")
    wanted = {crd["metadata"]["name"]: crd["spec"] for crd in (plugin_crd(), revision_crd())}
    assert {crd["metadata"]["name"]: crd["spec"] for crd in found} == wanted
    assert all(crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for crd in found)
    assert not (CHART / "crds").exists(), "helm never upgrades what is in crds/"


def test_the_chart_has_the_programs_version(release: Release) -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__
    (deployment,) = of_kind(release.objects(), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"crucible/operator:{__version__}"
    assert f"--image-tag={__version__}" in container["args"]


def test_a_digest_goes_before_a_tag(release: Release) -> None:
    (deployment,) = of_kind(release.objects(EVERYTHING), "Deployment")
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == f"crucible/operator@sha256:{'0' * 64}"


def test_a_standby_is_spread_and_may_be_evicted_alone(release: Release) -> None:
    objects = release.objects({"replicas": 2})
    (budget,), (deployment,) = of_kind(objects, "PodDisruptionBudget"), of_kind(objects, "Deployment")
    template = deployment["spec"]["template"]
    assert budget["spec"]["maxUnavailable"] == 1
    for selector in (
        budget["spec"]["selector"],
        *(one["labelSelector"] for one in template["spec"]["topologySpreadConstraints"]),
    ):
        assert selector["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert not of_kind(release.objects({"replicas": 1}), "PodDisruptionBudget")


def test_selectors_find_the_operator_and_not_the_test(release: Release) -> None:
    objects = release.objects(EVERYTHING)
    (deployment,), (test,) = of_kind(objects, "Deployment"), of_kind(objects, "Pod")
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        of_kind(objects, "Service")[0]["spec"]["selector"],
        of_kind(objects, "NetworkPolicy")[0]["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
        assert not selector.items() <= test["metadata"]["labels"].items()
    monitor = of_kind(objects, "ServiceMonitor")[0]["spec"]["selector"]["matchLabels"]
    assert monitor.items() <= of_kind(objects, "Service")[0]["metadata"]["labels"].items()


def test_the_operator_reaches_dns_and_the_api_server_and_nothing_else(release: Release) -> None:
    values = {"networkPolicy": {"apiServer": {"cidrs": ["10.0.0.1/32"], "ports": [6443]}}}
    (policy,) = of_kind(release.objects(values), "NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    dns, api = policy["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert api == {
        "ports": [{"port": 6443, "protocol": "TCP"}],
        "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}],
    }
    assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} == {8080, 9090}
    assert all(rule["from"] for rule in policy["spec"]["ingress"])


def test_two_releases_of_one_name_do_not_meet_outside_their_namespaces(release: Release) -> None:
    for one in release.objects(BUS):
        if "namespace" not in one["metadata"] and one["kind"] != "CustomResourceDefinition":
            assert one["metadata"]["name"].startswith(NAMESPACE)


def test_volumes_are_offered_in_the_words_that_the_operator_reads(release: Release) -> None:
    (deployment,) = of_kind(release.objects(EVERYTHING), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    words = [arg.removeprefix("--volume=") for arg in container["args"] if arg.startswith("--volume=")]
    assert claim_volumes(words) == (
        ClaimVolume("drafts", "team-drafts", writable=True, group=2_000_000_000),
        ClaimVolume("maps", "maps", writable=True),
        ClaimVolume("notes", "notes", writable=False),
    )
