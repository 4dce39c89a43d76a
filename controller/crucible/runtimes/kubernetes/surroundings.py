"""What stands around the pods of a plugin: its NetworkPolicy, its Service, its disruption budget. Pure.

All of it follows from the pods themselves, so that a controller that knows no manifest yet can put it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from crucible.runtimes.kubernetes import marks

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from crucible.runtimes.kubernetes.marks import Owner
    from crucible.runtimes.kubernetes.settings import DoorService

POLICY: Final = "NetworkPolicy"
SERVICE: Final = "Service"
BUDGET: Final = "PodDisruptionBudget"

PLACES: Final = {
    POLICY: ("/apis/networking.k8s.io/v1", "networkpolicies"),
    SERVICE: ("/api/v1", "services"),
    BUDGET: ("/apis/policy/v1", "poddisruptionbudgets"),
}
"""Where each kind is served, and under which name."""
_HELD: Final = {
    POLICY: (("spec",),),
    SERVICE: (("spec", "type"), ("spec", "selector"), ("spec", "ports")),
    BUDGET: (("spec", "maxUnavailable"), ("spec", "selector")),
}
"""The parts of each kind that are ours alone: whatever stands there is put back."""
_META: Final = ("labels", "ownerReferences")


def surroundings(
    owner: Owner,
    ports: Collection[int],
    *,
    several: bool,
    ways: Collection[DoorService] = (),
    routed: bool = False,
) -> tuple[dict[str, Any], ...]:
    """Return the objects that a plugin's pods need around them.

    Args:
        owner: the Plugin.
        ports: others may connect to these, and to no more.
        several: it has more than one replica.
        ways: what the plugin may connect to, and to nothing else.
        routed: new connections go to those pods alone of which that is said.
    """
    found = [network_policy(owner, ports, ways)]
    if ports:
        found.append(service(owner, ports, routed=routed))
    if several:
        found.append(disruption_budget(owner))
    return tuple(found)


def network_policy(owner: Owner, ports: Collection[int], ways: Collection[DoorService]) -> dict[str, Any]:
    """Return the policy that denies all but the declared ports inwards, and what is behind doors outwards."""
    opened = [{"ports": [{"port": port, "protocol": "TCP"} for port in sorted(ports)]}] if ports else []
    return {
        **_head("networking.k8s.io/v1", POLICY, owner, marks.rules_name(owner)),
        "spec": {
            "podSelector": {"matchLabels": marks.select(owner)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": opened,
            "egress": [_to(way) for way in ways],
        },
    }


def _to(way: DoorService) -> dict[str, Any]:
    """Return the rule that lets out to the pods behind a door, and to their one port."""
    return {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": way.namespace}},
                "podSelector": {"matchLabels": dict(way.labels)},
            }
        ],
        "ports": [{"port": way.port, "protocol": "TCP"}],
    }


def service(owner: Owner, ports: Collection[int], *, routed: bool = False) -> dict[str, Any]:
    """Return the Service under which others reach the plugin."""
    return {
        **_head("v1", SERVICE, owner, marks.service_name(owner)),
        "spec": {
            "type": "ClusterIP",
            "selector": {**marks.select(owner), **({marks.REACHED: "yes"} if routed else {})},
            "ports": [
                {"name": f"port-{port}", "port": port, "targetPort": port, "protocol": "TCP"}
                for port in sorted(ports)
            ],
        },
    }


def disruption_budget(owner: Owner) -> dict[str, Any]:
    """Return the budget that lets a drain take one replica at a time."""
    return {
        **_head("policy/v1", BUDGET, owner, marks.rules_name(owner)),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": marks.select(owner)}},
    }


def _head(version: str, kind: str, owner: Owner, name: str) -> dict[str, Any]:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": marks.common_labels(owner),
            "ownerReferences": [owner.reference],
        },
    }


def path_of(wanted: Mapping[str, Any]) -> str:
    """Return the path of an object's collection."""
    root, plural = PLACES[wanted["kind"]]
    return f"{root}/namespaces/{wanted['metadata']['namespace']}/{plural}"


def repair(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the JSON patch that gives an object back what is ours of it; empty where it has it all.

    What is ours is replaced as a whole: a rule that somebody added to a NetworkPolicy opens it as surely as
    one that was taken away.
    """
    patch = []
    for steps in _HELD[wanted["kind"]]:
        should, does = _at(wanted, steps), _at(live, steps)
        if _bare(should) != _bare(does):
            patch.append({"op": "add", "path": "/" + "/".join(steps), "value": should})
    for field in _META:
        should, does = wanted["metadata"][field], live["metadata"].get(field)
        if isinstance(should, dict):
            should = {**(does or {}), **should}
        if should != does:
            patch.append({"op": "add", "path": f"/metadata/{field}", "value": should})
    return patch


def _at(found: Mapping[str, Any], steps: tuple[str, ...]) -> Any:  # noqa: ANN401 - any JSON
    inner: Any = found
    for step in steps:
        inner = inner.get(step, {}) if isinstance(inner, dict) else {}
    return inner


def _bare(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return a value without what servers leave out, which is what is empty, or add: node ports."""
    if isinstance(value, dict):
        kept = {key: _bare(each) for key, each in value.items() if key != "nodePort"}
        return {key: each for key, each in kept.items() if each not in ({}, [], None)}
    return [_bare(each) for each in value] if isinstance(value, list) else value
