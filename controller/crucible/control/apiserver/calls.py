"""The options of a write: what a request's query says about how it is to be done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import status
from .patching import APPLY
from .writes import Call

if TYPE_CHECKING:
    from .handlers import Asked

MAX_MANAGER: Final = 128


def call_of(asked: Asked, now: str) -> Call:
    """How a write is asked for.

    Raises:
        ApiError: 422, an option is malformed.
    """
    query = asked.query
    causes = []
    if query.get("dryRun") not in {None, "", "All"}:
        causes.append(status.unsupported("dryRun", query["dryRun"], ("All",)))
    validation = query.get("fieldValidation") or "Warn"
    if validation not in {"Strict", "Warn", "Ignore"}:
        causes.append(status.unsupported("fieldValidation", validation, ("Ignore", "Strict", "Warn")))
    manager = query.get("fieldManager") or ""
    if len(manager) > MAX_MANAGER:
        causes.append(status.too_long("fieldManager", MAX_MANAGER))
    if not manager.isprintable():
        causes.append(status.invalid("fieldManager", manager, "should only contain printable characters"))
    is_apply = asked.method == "PATCH" and asked.media_type == APPLY
    if is_apply and not manager:
        causes.append(status.required("fieldManager", "is required for apply patch"))
    force = query.get("force") in {"true", "1", "True"}
    if force and not is_apply:
        causes.append(status.forbidden_field("force", "may not be specified for non-apply patch"))
    if causes:
        raise status.invalid_object("PatchOptions", "meta.k8s.io", "", causes)
    return Call(
        manager=manager or asked.user_agent.partition("/")[0][:MAX_MANAGER] or "unknown",
        now=now,
        validation=validation,  # type: ignore[arg-type]
        dry_run=bool(query.get("dryRun")),
        force=force,
        subresource=asked.target.subresource,
        apply=is_apply,
    )
