"""What instances use, as ``metrics.k8s.io`` tells it: computed when asked, stored nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from . import status
from .jsontypes import encode
from .metadata import META_SCHEMA
from .resources import Resource
from .selectors import Selector, parse_fields, parse_labels

if TYPE_CHECKING:
    from .pods import PodProvider
    from .routes import Target
    from .structural import Schema

GROUP: Final = "metrics.k8s.io"
_VERSION: Final = "v1beta1"
_SCHEMA: Final[Schema] = {
    "type": "object",
    "description": "PodMetrics says what one running instance uses; it cannot be written.",
    "properties": {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": META_SCHEMA,
        "timestamp": {"type": "string"},
        "window": {"type": "string"},
        "containers": {
            "type": "array",
            "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    },
}


def metrics_resources() -> tuple[Resource, ...]:
    """PodMetrics."""
    return (
        Resource(
            group=GROUP,
            version=_VERSION,
            plural="pods",
            singular="pod",
            kind="PodMetrics",
            list_kind="PodMetricsList",
            namespaced=True,
            schema=_SCHEMA,
            verbs=("get", "list"),
            storage_version=_VERSION,
        ),
    )


async def send_metrics(request: web.Request, pods: PodProvider | None, target: Target) -> web.Response:
    """Answer with one instance's usage, or a list."""
    if request.method not in {"GET", "HEAD"} or target.subresource or "watch" in request.query:
        raise status.method_not_allowed()
    resource = target.resource
    query = request.query
    selector = Selector(
        parse_labels(query.get("labelSelector", "")), parse_fields(query.get("fieldSelector", ""), resource)
    )
    found = [] if pods is None else await pods.metrics(target.namespace, target.name)
    if target.name:
        if not found:
            raise status.not_found(resource.plural, resource.group, target.name)
        return _json(found[0])
    return _json(
        {
            "kind": resource.list_kind,
            "apiVersion": resource.api_version,
            "metadata": {},
            "items": [each for each in found if selector.matches(each)],
        }
    )


def _json(body: dict[str, object]) -> web.Response:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
    return web.Response(body=encode(body), headers=headers)
