"""The scale subresource: a Scale read from an object, and an object changed by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import status
from .jsontypes import clone, dig

if TYPE_CHECKING:
    from .jsontypes import Json, Object
    from .resources import Resource, Scale


def scale_of(body: Object, scale: Scale) -> Object:
    """The autoscaling/v1 Scale of an object."""
    meta = body["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    shown: Object = {"replicas": dig(body, *scale.status_replicas) or 0}
    selector = dig(body, *scale.selector) if scale.selector else None
    if selector:
        shown["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: meta[key] for key in kept if key in meta},
        "spec": {"replicas": dig(body, *scale.replicas) or 0},
        "status": shown,
    }


def scaled(body: Object, wanted: Json, scale: Scale, resource: Resource) -> Object:
    """``body`` with the replicas of a Scale.

    Raises:
        ApiError: 422, the number is not one.
    """
    replicas = dig(wanted, "spec", "replicas")
    name = body["metadata"]["name"]
    if isinstance(replicas, bool) or not isinstance(replicas, int) or not 0 <= replicas < 2**31:
        cause = status.invalid("spec.replicas", replicas, "must be greater than or equal to 0")
        raise status.invalid_object("Scale", "autoscaling", name, [cause])
    changed: Object = clone(body)
    node = changed
    for step in scale.replicas[:-1]:
        node = node.setdefault(step, {})
    node[scale.replicas[-1]] = replicas
    revision = dig(wanted, "metadata", "resourceVersion")
    if revision and revision != body["metadata"]["resourceVersion"]:
        raise status.conflict(resource.plural, resource.group, name)
    return changed
