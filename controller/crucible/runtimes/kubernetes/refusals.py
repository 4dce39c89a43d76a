"""What it means that the cluster refused a pod, and what to do about it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crucible.errors import Conflict, NotFound, Unavailable

if TYPE_CHECKING:
    from crucible.errors import CrucibleError

_LONGEST: Final = 1024


def waits_for(error: CrucibleError) -> Unavailable | None:
    """Return why nothing can be made now although nothing is wrong with the plugin, or None where there is.

    A quota, a missing right and a namespace that goes can change without anyone touching the plugin, so it is
    tried again and again.
    """
    said = str(error)
    if error.retry and not isinstance(error, Conflict):
        return Unavailable(said)
    if "exceeded quota" in said:
        return Unavailable(
            f"the namespace's quota is used up: {said}; free some of it, or raise it"[:_LONGEST]
        )
    if " cannot " in said and " resource " in said:
        return Unavailable(f"the operator lacks a right: {said}; see the chart's rbac"[:_LONGEST])
    if "error looking up service account" in said:
        return Unavailable(
            f"the namespace is not ready: {said}; the cluster makes it a default service account"[:_LONGEST]
        )
    if isinstance(error, NotFound) or "being terminated" in said:
        return Unavailable(f"the namespace takes nothing new: {said}"[:_LONGEST])
    return None


def problem_of(error: CrucibleError) -> str:
    """Return why the cluster will not have this pod, with the fix, for whoever wrote the plugin."""
    said = str(error)
    if isinstance(error, Conflict):
        return said[:_LONGEST]
    if "admission webhook" in said or "ValidatingAdmissionPolicy" in said:
        return f"a rule of the cluster refused its pod: {said}; change the plugin, or have the rule changed"[
            :_LONGEST
        ]
    if "violates PodSecurity" in said:
        return f"the namespace's Pod Security refused its pod, which keeps restricted: {said}"[:_LONGEST]
    return f"the cluster refused its pod: {said}"[:_LONGEST]
