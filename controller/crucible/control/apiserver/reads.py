"""Get and list: which records, in which form, in which page."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from . import status
from .jsontypes import encode
from .selectors import Selector, parse_fields, parse_labels
from .tables import partial, table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from datetime import datetime

    from .jsontypes import Object
    from .keys import Record
    from .negotiate import Form
    from .resources import Resource
    from .status import Cause
    from .store import Store
    from .tables import Include

ROWS_AT_ONCE: Final = 50
_MATCH: Final = "resourceVersionMatch"
_MATCHES: Final = ("Exact", "NotOlderThan")
_LIST_TOO_OLD: Final = "The resourceVersion for the provided list is too old."
_PAGE_TOO_OLD: Final = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new "
    "list without the continue parameter, or use the continue token in this response to retrieve the "
    "remainder of the results. Continuing with the provided token results in an inconsistent list - objects "
    "that were created, modified, or deleted between the time the first chunk was returned and now may show "
    "up in the list."
)
_NEWEST: Final = -1
"""The revision in a token that goes on with whatever there is by then."""


@dataclass(frozen=True, slots=True)
class View:
    """How records are shown."""

    resource: Resource
    form: Form
    include: Include
    clock: Callable[[], datetime]

    @property
    def now(self) -> datetime:
        """The moment ages are counted to."""
        return self.clock()


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list: its records and the list's metadata."""

    records: Sequence[Record]
    meta: Object


def selector_of(query: Mapping[str, str], resource: Resource) -> Selector:
    """The selectors in a query.

    Raises:
        ApiError: 400, one is malformed.
    """
    labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
    return Selector(parse_labels(labels), parse_fields(fields, resource) if fields else ())


def include_of(query: Mapping[str, str]) -> Include:
    """How much of each object a Table's rows carry.

    Raises:
        ApiError: 400, the value is unknown.
    """
    match query.get("includeObject", "Metadata"):
        case "None":
            return "None"
        case "Metadata" | "":
            return "Metadata"
        case "Object":
            return "Object"
        case other:
            raise status.bad_request(f"unrecognized includeObject value: {other!r}")


def page_of(store: Store, resource: Resource, namespace: str, query: Mapping[str, str]) -> Page:
    """The page a query asks for. Later pages show the moment of the first.

    Raises:
        ApiError: 400, 422 or 504 for a query that cannot be answered, 410 for a moment no longer known.
    """
    selector = selector_of(query, resource)
    limit = whole_number(query, "limit")
    start = ("", "")
    if query.get("continue"):
        _check_continued(query)
        asked, start = _read_token(query["continue"])
        revision = store.revision if asked == _NEWEST else asked
        found = _records_at(store, resource, namespace, revision)
        if found is None:
            raise _expired_page(start)
        records = [record for record in found if record.key[1:] > start]
    elif exact := exact_revision(query, store.revision):
        revision = exact
        found = _records_at(store, resource, namespace, revision)
        if found is None:
            raise status.expired(_LIST_TOO_OLD)
        records = found
    else:
        revision = store.revision
        records = store.list(resource.collection, namespace)
    if selector:
        records = [record for record in records if selector.matches(record.body)]
    meta: Object = {"resourceVersion": str(revision)}
    if resource.custom:
        meta["continue"] = ""
    if limit and len(records) > limit:
        meta["continue"] = _token(revision, *records[limit - 1].key[1:])
        if not selector:
            meta["remainingItemCount"] = len(records) - limit
        records = records[:limit]
    return Page(records, meta)


def whole_number(query: Mapping[str, str], name: str) -> int:
    """A number in a query, 0 where it is absent.

    Raises:
        ApiError: 400, it is not a whole number of at most 18 digits.
    """
    text = query.get(name) or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 18):  # noqa: PLR2004 - fits 64 bits
        raise status.bad_request(
            f"invalid value {text[:40]!r} for query parameter {name}: must be a whole number"
        )
    return int(text)


def _records_at(store: Store, resource: Resource, namespace: str, revision: int) -> list[Record] | None:
    """A collection as it stood at ``revision``, in order; None where that is no longer known."""
    past = store.history.undo(store.collection(resource.collection), resource.collection, revision)
    if past is None:
        return None
    return [past[key] for key in sorted(past) if not namespace or key.namespace == namespace]


def _expired_page(start: tuple[str, str]) -> status.ApiError:
    """410 for a page whose moment is gone, with a token for those who take the present instead."""
    error = status.expired(_PAGE_TOO_OLD)
    error.metadata = {"continue": _token(_NEWEST, *start)}
    return error


def exact_revision(query: Mapping[str, str], newest: int) -> int:
    """The revision that a list must show exactly; 0 where any from the asked one on will do.

    A limit without a ``resourceVersionMatch`` asks for exactly the revision named, as on a real server.

    Raises:
        ApiError: 400 or 422, the query is malformed; 504, the revision is in the future.
    """
    wanted = whole_number(query, "resourceVersion")
    match = query.get("resourceVersionMatch", "")
    details = []
    if match and not query.get("resourceVersion"):
        details.append("resourceVersionMatch is forbidden unless resourceVersion is provided")
    if match == "Exact" and query.get("resourceVersion") == "0":
        details.append('resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
    _refuse_match([status.forbidden_field(_MATCH, detail) for detail in details], match)
    if wanted > newest:
        message = f"Too large resource version: {wanted}, current: {newest}"
        causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
        raise status.ApiError(504, "Timeout", message, {"causes": causes, "retryAfterSeconds": 1})
    return wanted if match == "Exact" or (not match and whole_number(query, "limit")) else 0


def _check_continued(query: Mapping[str, str]) -> None:
    """Refuse a later page that names a moment of its own: it has the first one's."""
    match = query.get("resourceVersionMatch", "")
    if match:
        detail = "resourceVersionMatch is forbidden when continue is provided"
        _refuse_match([status.forbidden_field(_MATCH, detail)], match)
    if query.get("resourceVersion", "") not in {"", "0"}:
        raise status.bad_request("specifying resource version is not allowed when using continue")


def _refuse_match(causes: list[Cause], match: str) -> None:
    if match not in {"", *_MATCHES}:
        causes.append(status.unsupported(_MATCH, match, (*_MATCHES, "")))
    if causes:
        raise status.invalid_object("ListOptions", "meta.k8s.io", "", causes)


def _token(revision: int, namespace: str, name: str) -> str:
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": [namespace, name]})
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        data = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, name = data["start"]
        if not isinstance(data["rv"], int) or not isinstance(namespace, str) or not isinstance(name, str):
            raise TypeError("continue token of the wrong shape")  # noqa: TRY301 - answered a line below
        return data["rv"], (namespace, name)
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise status.bad_request(f"continue key is not valid: {error}") from error


def record_bytes(record_raw: bytes, body: Object, resource: Resource) -> bytes:
    """A stored object in the version it is asked for."""
    if not resource.custom or body.get("apiVersion") == resource.api_version:
        return record_raw
    return encode({**body, "apiVersion": resource.api_version})


async def show_list(page: Page, view: View) -> bytes:
    """The bytes of a list. Long ones let the loop run other things in between."""
    resource = view.resource
    match view.form:
        case "table":
            return await _show_table(page, view)
        case "partial":
            head = {
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": page.meta,
            }
            items = [encode(partial(record.body)) async for record in _gently(page.records)]
        case _:
            head = {"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": page.meta}
            items = [record_bytes(r.raw, r.body, resource) async for r in _gently(page.records)]
    return encode(head)[:-1] + b',"items":[' + b",".join(items) + b"]}"


async def _show_table(page: Page, view: View) -> bytes:
    head = table((), view.resource, page.meta, view.include, view.now)
    del head["rows"]
    rows = [
        encode(table((record.body,), view.resource, {}, view.include, view.now)["rows"][0])
        async for record in _gently(page.records)
    ]
    return encode(head)[:-1] + b',"rows":[' + b",".join(rows) + b"]}"


async def _gently(records: Sequence[Record]) -> AsyncIterator[Record]:
    for at, record in enumerate(records):
        if at % ROWS_AT_ONCE == ROWS_AT_ONCE - 1:
            await asyncio.sleep(0)
        yield record


def show_object(body: Object, raw: bytes | None, view: View) -> bytes:
    """The bytes of one object."""
    match view.form:
        case "table":
            return encode(table((body,), view.resource, body["metadata"], view.include, view.now))
        case "partial":
            return encode(partial(body))
        case _:
            shown = raw or encode({**body, "apiVersion": view.resource.api_version})
            return record_bytes(shown, body, view.resource)
