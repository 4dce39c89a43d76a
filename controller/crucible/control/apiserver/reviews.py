"""Self-subject reviews: the one user of this server may do everything that is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .jsontypes import dig

if TYPE_CHECKING:
    from .jsontypes import Object
    from .resources import Catalog, Resource

USER = "crucible-admin"
GROUPS = ("system:masters", "system:authenticated")


def review(resource: Resource, body: Object, catalog: Catalog, now: str) -> Object:
    """The answer to a review: its object with a status."""
    head = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"creationTimestamp": now}}
    match resource.kind:
        case "SelfSubjectAccessReview":
            return {**head, "spec": body.get("spec") or {}, "status": _access(body, catalog)}
        case "SelfSubjectRulesReview":
            return {**head, "spec": body.get("spec") or {}, "status": _rules()}
        case _:
            user = {"username": USER, "uid": USER, "groups": list(GROUPS)}
            return {**head, "status": {"userInfo": user}}


def _access(body: Object, catalog: Catalog) -> Object:
    asked = dig(body, "spec", "resourceAttributes")
    if not isinstance(asked, dict):
        return {"allowed": True, "reason": "the token's owner may do everything"}
    group, plural, verb = asked.get("group", ""), asked.get("resource", "*"), asked.get("verb", "*")
    if plural == "*" or group == "*":
        return {"allowed": True, "reason": "the token's owner may do everything"}
    served = [r for r in catalog.resources if r.plural == plural and r.group == group]
    if not served:
        return {"allowed": False, "reason": f"{plural} are not served by this control plane"}
    verbs = served[0].verbs
    allowed = verb in {"*", *verbs} or bool(asked.get("subresource"))
    return {"allowed": allowed, "reason": "" if allowed else f"{plural} support only {', '.join(verbs)}"}


def _rules() -> Object:
    return {
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        "incomplete": False,
    }
