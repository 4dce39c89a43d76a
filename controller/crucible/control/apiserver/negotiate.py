"""Which form of an answer a client accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .status import ApiError

Form = Literal["object", "table", "partial", "discovery"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The chosen form, and the Content-Type that announces it."""

    form: Form
    content_type: str = "application/json"


def negotiate(accept: str, *, discovery: bool = False) -> Accepted:
    """Choose the first form in ``accept`` that is served; an empty header accepts anything.

    Raises:
        ApiError: 406, none is served.
    """
    if not accept or accept in {"*/*", "application/json"}:
        return Accepted("object")
    for clause in accept.split(","):
        media, *rest = (part.strip() for part in clause.split(";"))
        if media not in {"application/json", "application/*", "*/*"}:
            continue
        parameters = dict(part.partition("=")[::2] for part in rest)
        chosen = _chosen(parameters, discovery=discovery)
        if chosen:
            return chosen
    message = (
        "only the following media types are accepted: "
        "application/json, application/json;as=Table;v=v1;g=meta.k8s.io"
    )
    raise ApiError(406, "NotAcceptable", message)


def _chosen(parameters: dict[str, str], *, discovery: bool) -> Accepted | None:
    kind, group, version = parameters.get("as"), parameters.get("g"), parameters.get("v")
    if kind is None:
        return Accepted("object")
    if discovery and (kind, group, version) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2"):
        return Accepted("discovery", f"application/json;g={group};v={version};as={kind}")
    if discovery or group != "meta.k8s.io" or version != "v1":
        return None
    if kind == "Table":
        return Accepted("table")
    return Accepted("partial") if kind in {"PartialObjectMetadata", "PartialObjectMetadataList"} else None
