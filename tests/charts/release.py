"""The chart as real helm renders it."""

from __future__ import annotations

import functools
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts/crucible"
HELM = REPOSITORY / ".tools/bin/helm"
NAMESPACE = "crucible-system"
SECONDS = 60

Object = dict[str, Any]

EVERYTHING: Object = {
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"team": "a"}},
        "rules": {"enabled": True},
        "dashboard": {"enabled": True},
    },
    "admission": {"policies": "always", "allowedNamespaces": ["one", "two"]},
    "imagePullSecrets": ["pull"],
    "image": {"digest": f"sha256:{'0' * 64}"},
    "plugins": {
        "images": {"pullSecret": "pull", "tag": "1"},
        "networkPolicies": "enforced",
        "seccompProfile": "crucible/{type}.json",
        "userNamespaces": "never",
        "vmRuntimeClass": "kata",
        "priorityClassName": "plugins",
        "volumes": {
            "notes": {"claim": "notes", "readOnly": True},
            "drafts": {"claim": "team-drafts", "group": 2_000_000_000},
            "maps": {"claim": "maps"},
        },
    },
    "networkPolicy": {
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}],
        "apiServer": {"cidrs": ["10.0.0.1/32", "fd00::1/128"]},
        "extraEgress": [{"ports": [{"port": 8443}]}],
    },
    "alerts": {"url": "https://alerts.example.org"},
    "serviceAccount": {"annotations": {"a": "b"}},
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"a": "b"},
    "commonLabels": {"c": "d"},
    "env": {"LANG": "C.UTF-8"},
}
EGRESS: Object = {
    **EVERYTHING,
    "egress": {
        "enabled": True,
        "replicas": 3,
        "to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}],
        "clusterIP": "10.96.0.77",
    },
}
BUS: Object = {
    **EGRESS,
    "bus": {"enabled": True, "clusterIP": "10.96.0.78", "callers": {"namespaces": ["one", "two"]}},
}
REPLICATED: Object = {
    **EGRESS,
    "bus": {
        "enabled": True,
        "replicas": 3,
        "nats": {"enabled": True, "storage": {"size": "20Gi", "className": "fast"}},
    },
}
NOTHING: Object = {
    "crds": {"install": False},
    "rbac": {"create": False},
    "serviceAccount": {"create": False, "name": "other"},
    "metrics": {"service": False},
    "admission": {"policies": "never"},
    "networkPolicy": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
}


@dataclass(frozen=True, slots=True)
class Ran:
    """What helm answered."""

    code: int
    out: str
    err: str


def helm(*argv: str, values: Object | None = None) -> Ran:
    """Run helm, with values on its standard input."""
    given = ("--values", "-") if values is not None else ()
    done = subprocess.run(
        [HELM, *argv, *given],
        input=json.dumps(values or {}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


class Release:
    """Renders the chart; the same values once."""

    def objects(
        self, values: Object | None = None, kube: str = "1.36.0", name: str = "crucible"
    ) -> list[Object]:
        """Return what a release with these values is made of."""
        return [dict(one) for one in _objects(json.dumps(values or {}), kube, name)]

    def refusal(self, values: Object, *argv: str) -> str:
        """Return why helm refuses these values."""
        ran = helm("template", "crucible", str(CHART), *argv, values=values)
        assert ran.code != 0, "helm took them"
        return ran.err


@functools.cache
def _objects(values: str, kube: str, name: str) -> list[Object]:
    ran = helm(
        *("template", name, str(CHART), "--namespace", NAMESPACE, "--kube-version", kube),
        values=json.loads(values),
    )
    assert ran.code == 0, ran.err
    return [one for one in yaml.safe_load_all(ran.out) if one]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Return the objects of one kind."""
    return [one for one in objects if one["kind"] == kind]


def pods(objects: list[Object]) -> list[Object]:
    """Return every pod's specification, however it comes to be."""
    return [
        one["spec"] if one["kind"] == "Pod" else one["spec"]["template"]["spec"]
        for one in objects
        if one["kind"] == "Pod" or "template" in one.get("spec", {})
    ]
