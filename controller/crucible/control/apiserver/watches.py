"""One watch request: initial events, replay, and what follows, as frames."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import status
from .jsontypes import encode
from .reads import record_bytes, selector_of, whole_number
from .tables import partial, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .jsontypes import Object
    from .keys import Event
    from .reads import View
    from .selectors import Selector
    from .store import Store

INITIAL_END = "k8s.io/initial-events-end"


@dataclass(frozen=True, slots=True)
class WatchCall:
    """What a watch asks for.

    Attributes:
        since: Revision to resume after; None starts with an ADDED event for each present object.
        ends_initial: True if a bookmark must mark the end of the initial events.
        timeout: Seconds until the server ends the watch; 0 leaves it to the server.
    """

    selector: Selector
    since: int | None
    bookmarks: bool
    ends_initial: bool
    timeout: int


def read_watch(query: Mapping[str, str], view: View) -> WatchCall:
    """Read a watch's query.

    Raises:
        ApiError: The query is malformed.
    """
    initial = query.get("sendInitialEvents")
    match = query.get("resourceVersionMatch")
    if initial is not None and match != "NotOlderThan":
        detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        cause = status.forbidden_field("resourceVersionMatch", detail)
        raise status.invalid_object("ListOptions", "meta.k8s.io", "", [cause])
    if initial is None and match:
        detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        cause = status.forbidden_field("resourceVersionMatch", detail)
        raise status.invalid_object("ListOptions", "meta.k8s.io", "", [cause])
    text = query.get("resourceVersion") or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 18):  # noqa: PLR2004 - fits 64 bits
        raise status.ApiError(500, "", f'strconv.ParseUint: parsing "{text[:40]}": invalid syntax')
    since: int | None = int(text)
    wants_all = initial in {"true", "1", "True"}
    if wants_all or (since == 0 and initial is None):
        since = None
    bookmarks = query.get("allowWatchBookmarks") in {"true", "1", "True"}
    return WatchCall(
        selector=selector_of(query, view.resource),
        since=since,
        bookmarks=bookmarks,
        ends_initial=wants_all and bookmarks,
        timeout=whole_number(query, "timeoutSeconds"),
    )


class Framer:
    """Turns events into the frames of one watch, following its selector."""

    def __init__(self, view: View, selector: Selector) -> None:
        self._view = view
        self._selector = selector
        self._columns_sent = False

    def initial(self, store: Store, namespace: str) -> Iterator[bytes]:
        """ADDED frames for everything present."""
        for record in store.list(self._view.resource.collection, namespace):
            if self._selector.matches(record.body):
                yield self._frame("ADDED", record.raw, record.body)

    def frames(self, events: Iterable[Event]) -> Iterator[bytes]:
        """The frames of events that concern this watch."""
        for event in events:
            frame = self._of(event)
            if frame:
                yield frame

    def _of(self, event: Event) -> bytes | None:
        if not self._selector:
            return self._frame(event.type, event.raw, None)
        body = json.loads(event.raw)
        now_in = event.type != "DELETED" and self._selector.matches(body)
        was_in = event.previous is not None and self._selector.matches(json.loads(event.previous))
        if now_in:
            return self._frame("MODIFIED" if was_in else "ADDED", event.raw, body)
        if not was_in or event.previous is None:
            return None
        last = json.loads(event.previous)
        last["metadata"]["resourceVersion"] = str(event.revision)
        return self._frame("DELETED", encode(last), last)

    def bookmark(self, revision: int, *, ends_initial: bool = False) -> bytes:
        """A bookmark; the one that ends the initial events says so."""
        resource, meta = self._view.resource, {"resourceVersion": str(revision)}
        body: Object = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
        if ends_initial:
            body["metadata"] = {**meta, "annotations": {INITIAL_END: "true"}}
        if self._view.form == "table":
            body = table((), resource, meta, "None", self._view.now)
        elif self._view.form == "partial":
            body = partial(body)
        return b'{"type":"BOOKMARK","object":' + encode(body) + b"}\n"

    def _frame(self, kind: str, raw: bytes, body: Object | None) -> bytes:
        view = self._view
        if view.form != "object" or view.resource.version != view.resource.storage_version:
            body = json.loads(raw) if body is None else body
        match view.form:
            case "table" if body is not None:
                shown = table((body,), view.resource, body["metadata"], view.include, view.now)
                if self._columns_sent:
                    shown["columnDefinitions"] = None
                self._columns_sent = True
                raw = encode(shown)
            case "partial" if body is not None:
                raw = encode(partial(body))
            case _ if body is not None:
                raw = record_bytes(raw, body, view.resource)
            case _:
                pass
        return b'{"type":"' + kind.encode() + b'","object":' + raw + b"}\n"


def error_frame(error: status.ApiError) -> bytes:
    """An error inside a watch that was already answered with 200."""
    return b'{"type":"ERROR","object":' + encode(error.body()) + b"}\n"
