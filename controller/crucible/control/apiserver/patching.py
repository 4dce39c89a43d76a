"""PATCH: from the live object and a patch of some media type to the next object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import status
from .apply import Application, apply
from .decode import decode_json, decode_json_or_yaml, unsupported_media
from .fieldsets import typed_problems
from .jsontypes import clone, encode
from .managed import read_entries, write_entries
from .patches import PatchFailed, PatchMalformed, json_patch, merge_patch, strategic_patch

if TYPE_CHECKING:
    from .jsontypes import Json, Object
    from .resources import Resource
    from .writes import Call

JSON: Final = "application/json-patch+json"
MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"


def accepted_types(resource: Resource) -> tuple[str, ...]:
    """The patch media types of a resource, as the real server lists them."""
    return (JSON, MERGE, APPLY) if resource.custom else (JSON, MERGE, STRATEGIC, APPLY)


def decode_patch(
    raw: bytes, media_type: str, resource: Resource, max_depth: int
) -> tuple[Json, tuple[str, ...]]:
    """The decoded patch, and fields it says twice.

    Raises:
        ApiError: 400 or 415.
    """
    if media_type not in accepted_types(resource):
        raise unsupported_media(accepted_types(resource))
    found = decode_json_or_yaml(raw, max_depth) if media_type == APPLY else decode_json(raw, max_depth)
    if media_type != JSON and not isinstance(found.value, dict):
        kind = {list: "array", str: "string", bool: "bool", type(None): "null"}.get(
            type(found.value), "number"
        )
        raise status.bad_request(
            f"error decoding patch: json: cannot unmarshal {kind} into Go value of type "
            "map[string]interface {}"
        )
    return found.value, found.duplicates


def patched(live: Object, patch: Json, media_type: str) -> Object:
    """``live`` after a merge, strategic or JSON patch.

    Raises:
        ApiError: 400 where the patch is malformed, 422 where it does not fit.
    """
    try:
        if media_type == JSON:
            result = json_patch(live, patch)
        elif media_type == STRATEGIC:
            result = strategic_patch(live, patch)
        else:
            result = merge_patch(live, patch)
    except PatchMalformed as error:
        raise status.bad_request(f"error decoding patch: {error}") from error
    except PatchFailed as error:
        message = f"the server rejected our request due to an error in our request: {error}"
        raise status.ApiError(422, "Invalid", message, {}) from error
    if not isinstance(result, dict) or not isinstance(result.get("metadata", {}), dict):
        raise status.ApiError(422, "Invalid", "the patched object is not an object with metadata", {})
    return result


def invalid_patch(result: Json, said: str) -> status.ApiError:
    """422 for a patch whose result has unknown fields under Strict."""
    text = encode(result).decode()
    cause = status.Cause("FieldValueInvalid", "patch", f"Invalid value: {status.shown(text)}: {said}")
    return status.ApiError(422, "Invalid", f' "" is invalid: {cause}', status.details("", "", "", [cause]))


def applied(live: Object | None, config: Object, resource: Resource, name: str, call: Call) -> Object:
    """The object a server-side apply leads to, its managedFields included.

    Raises:
        ApiError: 400, 409 or 500, as the real server answers them.
    """
    meta = config.get("metadata")
    if meta is not None and not isinstance(meta, dict):
        raise status.bad_request("metadata must be an object")
    if (meta or {}).get("managedFields"):
        raise status.bad_request("metadata.managedFields must be nil")
    kind, version = config.get("kind"), config.get("apiVersion")
    if not kind or not version:
        missing = "Kind" if not kind else "apiVersion"
        raise status.bad_request(f"Object '{missing}' is missing in the object provided")
    where = f"{meta.get('namespace', '') if meta else ''}/{name}; {version}, Kind={kind}"
    for problem in typed_problems(config, resource.schema):
        raise status.ApiError(500, "", f"failed to create typed patch object ({where}): {problem}")
    base: Object = live if live is not None else {"apiVersion": version, "kind": kind, "metadata": {}}
    wanted = Application(
        _scoped(config, resource, call.subresource), call.writer(resource), call.now, call.force
    )
    result = apply(base, read_entries(base["metadata"]), resource.schema, wanted)
    body: Object = clone(result.body)
    body["metadata"]["managedFields"] = write_entries(result.entries)
    body["metadata"]["name"] = (meta or {}).get("name") or name
    return body


def _scoped(config: Object, resource: Resource, subresource: str) -> Object:
    """The part of a configuration that this endpoint may change."""
    if subresource == "status":
        return {key: config[key] for key in ("apiVersion", "kind", "status") if key in config}
    return {key: value for key, value in config.items() if key != "status" or not resource.has_status}
