"""One API request: from its method and target to an answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from . import status
from .admission import StrictError
from .calls import call_of
from .decode import Decoded, decode_body
from .deletes import delete, read_options
from .jsontypes import encode
from .keys import Key
from .patching import APPLY, JSON, applied, decode_patch, invalid_patch, patched
from .reads import View, page_of, selector_of, show_list, show_object
from .reviews import review
from .scaling import scale_of, scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .jsontypes import Object
    from .keys import Record
    from .resources import Catalog
    from .routes import Target
    from .store import Store
    from .writes import Call, Outcome, Writes


@dataclass(frozen=True, slots=True)
class Site:
    """What every request works on."""

    store: Store
    writes: Writes
    catalog: Callable[[], Catalog]
    now: Callable[[], str]
    max_depth: int


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, its body read."""

    method: str
    target: Target
    query: Mapping[str, str]
    media_type: str
    raw: bytes
    user_agent: str
    view: View


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back."""

    code: int
    body: bytes
    warnings: tuple[str, ...] = ()


async def answer(site: Site, asked: Asked) -> Answer:
    """Do what a request asks.

    Raises:
        ApiError: It may not or cannot be done.
    """
    target = asked.target
    if target.resource.create_only:
        return _review(site, asked)
    _check_verb(asked)
    if target.subresource == "scale" and target.resource.scale is not None:
        return await _scale(site, asked)
    if target.subresource and not (target.subresource == "status" and target.resource.has_status):
        raise status.ApiError(404, "NotFound", "the server could not find the requested resource")
    match asked.method:
        case "GET" | "HEAD":
            return await _read(site, asked)
        case "POST":
            return await _create(site, asked)
        case "PUT":
            return await _replace(site, asked)
        case "PATCH":
            return await _patch(site, asked)
        case "DELETE" if target.name:
            return await _delete(site, asked)
        case "DELETE":
            return await _delete_collection(site, asked)
        case _:
            raise status.method_not_allowed()


async def _read(site: Site, asked: Asked) -> Answer:
    target = asked.target
    if target.name:
        record = _existing(site.store, target, durable=True)
        return Answer(200, show_object(record.body, record.raw, asked.view))
    page = page_of(site.store, target.resource, target.namespace, asked.query)
    return Answer(200, await show_list(page, asked.view))


_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def _check_verb(asked: Asked) -> None:
    target = asked.target
    verb = _VERBS.get(asked.method, "get")
    if verb not in target.resource.verbs:
        raise status.method_not_allowed()
    if asked.method in {"PUT", "PATCH"} and not target.name:
        raise status.method_not_allowed()
    if asked.method == "POST" and (target.subresource or (target.name and not target.resource.custom)):
        raise status.method_not_allowed()
    if target.resource.namespaced and not target.namespace and verb != "get":
        raise status.method_not_allowed()


def _existing(store: Store, target: Target, *, durable: bool = False) -> Record:
    resource = target.resource
    key = Key(resource.collection, target.namespace, target.name)
    record = store.get(key) if durable else store.head(key)
    if record is None:
        raise status.not_found(resource.plural, resource.group, target.name)
    return record


def _decoded(site: Site, asked: Asked) -> Decoded:
    found = decode_body(asked.raw, asked.media_type, site.max_depth)
    if not isinstance(found.value, dict):
        raise status.bad_request("the object provided is unrecognized (must be of type JSON object)")
    return found


def _shown(outcome: Outcome, asked: Asked) -> Answer:
    body = show_object(outcome.body, outcome.raw, asked.view)
    return Answer(201 if outcome.created else 200, body, outcome.warnings)


async def _create(site: Site, asked: Asked) -> Answer:
    found, target = _decoded(site, asked), asked.target
    call = replace(call_of(asked, site.now()), duplicates=found.duplicates)
    outcome = await site.writes.create(target.resource, target.namespace, found.value, call)
    return _shown(outcome, asked)


async def _replace(site: Site, asked: Asked) -> Answer:
    found, target, resource = _decoded(site, asked), asked.target, asked.target.resource
    call = call_of(asked, site.now())
    meta = found.value.get("metadata")
    name = meta.get("name") if isinstance(meta, dict) else None
    if name and name != target.name:
        raise status.bad_request(
            f"the name of the object ({name}) does not match the name on the URL ({target.name})"
        )
    live = _existing(site.store, target)
    if resource.custom and isinstance(meta, dict) and not meta.get("resourceVersion"):
        cause = status.invalid("metadata.resourceVersion", 0, "must be specified for an update")
        raise status.invalid_object(resource.plural, resource.group, target.name, [cause])
    outcome = await site.writes.update(
        resource, live, found.value, replace(call, duplicates=found.duplicates)
    )
    return _shown(outcome, asked)


async def _patch(site: Site, asked: Asked) -> Answer:
    target, resource = asked.target, asked.target.resource
    patch, duplicates = decode_patch(asked.raw, asked.media_type, resource, site.max_depth)
    call = call_of(asked, site.now())
    if call.apply:
        return await _apply(site, asked, patch, call)
    call = replace(call, duplicates=() if asked.media_type == JSON else duplicates)
    live = _existing(site.store, target)
    result = patched(live.body, patch, asked.media_type)
    try:
        outcome = await site.writes.update(resource, live, result, call)
    except StrictError as error:
        raise invalid_patch(result, error.said) from error
    return _shown(outcome, asked)


async def _apply(site: Site, asked: Asked, config: Object, call: Call) -> Answer:
    target, resource = asked.target, asked.target.resource
    live = site.store.head(Key(resource.collection, target.namespace, target.name))
    if live is None and target.subresource:
        raise status.not_found(resource.plural, resource.group, target.name)
    meta = config.get("metadata")
    given = meta.get("resourceVersion") if isinstance(meta, dict) else None
    if given and live is not None and given != live.body["metadata"]["resourceVersion"]:
        raise status.conflict(resource.plural, resource.group, target.name)
    result = applied(live.body if live else None, config, resource, target.name, call)
    if live is None:
        return _shown(await site.writes.create(resource, target.namespace, result, call), asked)
    return _shown(await site.writes.update(resource, live, result, call), asked)


async def _delete(site: Site, asked: Asked) -> Answer:
    resource, target = asked.target.resource, asked.target
    body = decode_body(asked.raw, asked.media_type, site.max_depth).value if asked.raw else None
    options = read_options(body, asked.query.get("propagationPolicy"), asked.query.get("dryRun"))
    live = _existing(site.store, target)
    outcome = await delete(site.store, resource, live, options, site.now())
    if not outcome.deleted:
        return _shown(outcome, asked)
    meta = outcome.body["metadata"]
    gone = {"name": meta["name"], "group": resource.group, "kind": resource.plural, "uid": meta["uid"]}
    details = {key: value for key, value in gone.items() if value}
    done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    return Answer(200, encode(done))


async def _delete_collection(site: Site, asked: Asked) -> Answer:
    resource, target = asked.target.resource, asked.target
    body = decode_body(asked.raw, asked.media_type, site.max_depth).value if asked.raw else None
    options = read_options(body, asked.query.get("propagationPolicy"), asked.query.get("dryRun"))
    selector = selector_of(asked.query, resource)
    records = [r for r in site.store.list(resource.collection, target.namespace) if selector.matches(r.body)]
    items = []
    for record in records:
        live = site.store.head(record.key)
        if live is not None:
            items.append((await delete(site.store, resource, live, options, site.now())).body)
    meta = {"resourceVersion": str(site.store.revision)}
    listed = {
        "kind": resource.list_kind,
        "apiVersion": resource.api_version,
        "metadata": meta,
        "items": items,
    }
    return Answer(200, encode(listed))


async def _scale(site: Site, asked: Asked) -> Answer:
    target, resource = asked.target, asked.target.resource
    scale = resource.scale
    if scale is None:
        raise status.method_not_allowed()
    live = _existing(site.store, target)
    now = scale_of(live.body, scale)
    match asked.method:
        case "GET":
            return Answer(200, encode(now))
        case "PUT":
            wanted = _decoded(site, asked).value
        case "PATCH" if asked.media_type != APPLY:
            patch, _ = decode_patch(asked.raw, asked.media_type, resource, site.max_depth)
            wanted = patched(now, patch, asked.media_type)
        case _:
            raise status.method_not_allowed()
    call = replace(call_of(asked, site.now()), subresource="")
    body = scaled(live.body, wanted, scale, resource)
    call = replace(call, subresource="scale")
    outcome = await site.writes.update(resource, live, body, call)
    return Answer(200, encode(scale_of(outcome.body, scale)), outcome.warnings)


def _review(site: Site, asked: Asked) -> Answer:
    if asked.method != "POST":
        raise status.method_not_allowed()
    body = _decoded(site, asked).value
    return Answer(201, encode(review(asked.target.resource, body, site.catalog(), site.now())))
