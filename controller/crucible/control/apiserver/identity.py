"""Whether a request's object is the one its path names, and of the version it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import status

if TYPE_CHECKING:
    from .jsontypes import Json, Object
    from .keys import Record
    from .resources import Resource

_TEXTS: Final = ("name", "namespace", "generateName", "uid", "resourceVersion")


def metadata_of(body: Object, resource: Resource) -> Object:
    """A copy of the metadata of a request's object.

    Raises:
        ApiError: 400, the object has no shape of one.
    """
    if not isinstance(body, dict):
        raise status.bad_request("the object provided is unrecognized (must be of type JSON object)")
    for name in ("apiVersion", "kind"):
        if not isinstance(body.get(name, ""), str | None):
            raise status.bad_request(f"{name} must be a string")
    meta = body.get("metadata")
    if meta is None:
        return {}
    if not isinstance(meta, dict):
        raise status.bad_request(f"{resource.kind}: metadata must be an object")
    for name in _TEXTS:
        if not isinstance(meta.get(name, ""), str | None):
            raise status.bad_request(f"{resource.kind}: metadata.{name} must be a string")
    return dict(meta)


def check_identity(resource: Resource, namespace: str, name: Json, body: Object, meta: Object) -> None:
    """Refuse an object of another kind, version, namespace or name than its path says.

    Raises:
        ApiError: 400 or 422.
    """
    version, kind = body.get("apiVersion"), body.get("kind")
    wanted = resource.api_version
    if version not in {None, "", wanted}:
        raise status.bad_request(
            f"the API version in the data ({version}) does not match the expected API version ({wanted})"
        )
    if resource.custom and not kind:
        raise status.bad_request("Object 'Kind' is missing in the object provided")
    if kind and kind != resource.kind:
        cause = status.invalid("kind", kind, f"must be {resource.kind}")
        raise status.invalid_object(resource.kind, resource.group, str(meta.get("name") or ""), [cause])
    if meta.get("namespace") not in {None, "", namespace if resource.namespaced else None}:
        raise status.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if name and meta.get("name") not in {None, "", name}:
        raise status.bad_request(
            f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
        )


def check_preconditions(resource: Resource, live: Record, meta: Object) -> None:
    """Refuse a write that was made from another object or another version than the live one.

    Raises:
        ApiError: 409.
    """
    name = live.key.name
    uid, revision = meta.get("uid"), meta.get("resourceVersion")
    if uid and uid != live.body["metadata"]["uid"]:
        detail = (
            f"Precondition failed: UID in precondition: {uid}, "
            f"UID in object meta: {live.body['metadata']['uid']}"
        )
        raise status.conflict(resource.plural, resource.group, name, detail)
    if revision and revision != live.body["metadata"]["resourceVersion"]:
        raise status.conflict(resource.plural, resource.group, name)
