"""The kinds every server has: their schemas and how they are addressed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .metadata import META_SCHEMA
from .metrics import metrics_resources
from .resources import READ_VERBS, Resource

if TYPE_CHECKING:
    from .structural import Schema

_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer"}
_FLAG: Schema = {"type": "boolean"}
_ANY: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_TEXTS: Schema = {"type": "object", "additionalProperties": _TEXT}
_BYTES: Schema = {"type": "object", "additionalProperties": {"type": "string", "format": "byte"}}
_MOMENT: Schema = {"type": "string", "nullable": True}
_REFERENCE: Schema = {
    "type": "object",
    "x-kubernetes-map-type": "atomic",
    "properties": dict.fromkeys(
        ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"), _TEXT
    ),
}
EVENT_LABELS: Final = frozenset(
    {
        f"involvedObject.{name}"
        for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    }
    | {"reason", "reportingComponent", "source", "type"}
)
POD_LABELS: Final = frozenset(
    {
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
    }
)


def object_schema(description: str, **properties: Schema) -> Schema:
    """The schema of a whole object with the usual three fields and ``properties``."""
    return {
        "type": "object",
        "description": description,
        "properties": {
            "apiVersion": {**_TEXT, "description": "Version of the schema of this representation."},
            "kind": {**_TEXT, "description": "The resource this object represents."},
            "metadata": META_SCHEMA,
            **properties,
        },
    }


def _struct(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties}


def _items(schema: Schema, kind: str = "atomic") -> Schema:
    return {"type": "array", "items": schema, "x-kubernetes-list-type": kind}


def _core(plural: str, kind: str, schema: Schema, **more: object) -> Resource:
    group, version = str(more.pop("group", "")), str(more.pop("version", "v1"))
    namespaced = bool(more.pop("namespaced", True))
    return Resource(
        group=group,
        version=version,
        plural=plural,
        singular=kind.lower(),
        kind=kind,
        list_kind=f"{kind}List",
        namespaced=namespaced,
        schema=schema,
        storage_version=version,
        **more,  # type: ignore[arg-type]
    )


def core_resources() -> tuple[Resource, ...]:
    """Namespaces, Secrets, ConfigMaps, Events, Leases, CRDs; Pods, Services, PodMetrics to read; reviews."""
    return (*_written(), *_read_only(), _definitions(), *_reviews(), *metrics_resources())


def _written() -> tuple[Resource, ...]:
    event = object_schema(
        "Event is a report of something that happened to an object.",
        involvedObject=_REFERENCE,
        related=_REFERENCE,
        source=_struct(component=_TEXT, host=_TEXT),
        series=_struct(count=_WHOLE, lastObservedTime=_MOMENT),
        count=_WHOLE,
        **dict.fromkeys(("firstTimestamp", "lastTimestamp", "eventTime"), _MOMENT),
        **dict.fromkeys(("reason", "message", "type", "action", "reportingComponent"), _TEXT),
        reportingInstance=_TEXT,
    )
    return (
        _core(
            "namespaces",
            "Namespace",
            object_schema(
                "Namespace provides a scope for names.",
                spec=_struct(finalizers=_items(_TEXT)),
                status=_struct(phase=_TEXT, conditions=_items(_ANY)),
            ),
            namespaced=False,
            short_names=("ns",),
            has_status=True,
            label_name=True,
            field_labels=frozenset({"status.phase"}),
        ),
        _core(
            "configmaps",
            "ConfigMap",
            object_schema(
                "ConfigMap holds configuration data.", data=_TEXTS, binaryData=_BYTES, immutable=_FLAG
            ),
            short_names=("cm",),
        ),
        _core(
            "secrets",
            "Secret",
            object_schema(
                "Secret holds secret data.",
                data=_BYTES,
                stringData=_TEXTS,
                type=_TEXT,
                immutable=_FLAG,
            ),
            field_labels=frozenset({"type"}),
        ),
        _core("events", "Event", event, short_names=("ev",), field_labels=EVENT_LABELS),
        _core(
            "leases",
            "Lease",
            object_schema(
                "Lease defines a lease concept.",
                spec=_struct(
                    holderIdentity=_TEXT,
                    leaseDurationSeconds=_WHOLE,
                    acquireTime=_MOMENT,
                    renewTime=_MOMENT,
                    leaseTransitions=_WHOLE,
                    strategy=_TEXT,
                    preferredHolder=_TEXT,
                ),
            ),
            group="coordination.k8s.io",
        ),
    )


def _read_only() -> tuple[Resource, ...]:
    return (
        _core(
            "pods",
            "Pod",
            object_schema("Pod shows one running instance; it cannot be written.", spec=_ANY, status=_ANY),
            verbs=READ_VERBS,
            short_names=("po",),
            categories=("all",),
            field_labels=POD_LABELS,
            subresources=("exec", "log"),
        ),
        _core(
            "services",
            "Service",
            object_schema("Services do not exist here; the list is always empty.", spec=_ANY, status=_ANY),
            verbs=READ_VERBS,
            short_names=("svc",),
        ),
    )


def _definitions() -> Resource:
    return _core(
        "customresourcedefinitions",
        "CustomResourceDefinition",
        object_schema("CustomResourceDefinition defines a kind.", spec=_ANY, status=_ANY),
        group="apiextensions.k8s.io",
        namespaced=False,
        short_names=("crd", "crds"),
        categories=("api-extensions",),
        has_status=True,
        counts_generation=True,
    )


def _reviews() -> tuple[Resource, ...]:
    def review(group: str, plural: str, kind: str) -> Resource:
        schema = object_schema(f"{kind} asks the server about the caller.", spec=_ANY, status=_ANY)
        return _core(plural, kind, schema, group=group, namespaced=False, verbs=("create",), create_only=True)

    authorization = "authorization.k8s.io"
    return (
        review(authorization, "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
        review(authorization, "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
        review("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    )
