"""Answers that go on: watches, logs and exec sessions."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from aiohttp import WSCloseCode, WSMsgType, web

from crucible.errors import Conflict, CrucibleError

from . import status
from .pods import LogOptions
from .watches import Framer, error_frame

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .keys import Event
    from .pods import ExecSession, PodProvider
    from .reads import View
    from .settings import ServerSettings
    from .store import Store
    from .watch import Hub
    from .watches import WatchCall

STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
EXEC_PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")


@dataclass(frozen=True, slots=True)
class WatchFeed:
    """One watch: where its events come from, and what of them it wants."""

    store: Store
    hub: Hub
    call: WatchCall
    view: View
    namespace: str
    settings: ServerSettings


async def send_watch(request: web.Request, feed: WatchFeed) -> web.StreamResponse:
    """Send a watch until it times out, its client leaves, or it falls too far behind."""
    store, call = feed.store, feed.call
    framer = Framer(feed.view, call.selector)
    headers = {"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
    response = web.StreamResponse(headers=headers)
    replayed = None if call.since is None else store.history.after(call.since)
    watcher = feed.hub.open(feed.view.resource.collection, feed.namespace)
    try:
        first = _first_frames(framer, feed, replayed)
        sent = store.revision
        await response.prepare(request)
        await response.write(b"".join(first))
        if call.since is not None and replayed is None:
            return response
        loop = asyncio.get_running_loop()
        ends = loop.time() + (call.timeout or feed.settings.watch_timeout)
        while not watcher.closed and (left := ends - loop.time()) > 0:
            events = await watcher.take(min(left, feed.settings.bookmark_interval))
            frames = list(framer.frames(event for event in events if event.revision > sent))
            if not events and call.bookmarks:
                frames = [framer.bookmark(store.revision)]
            if frames:
                await response.write(b"".join(frames))
    finally:
        feed.hub.close(watcher)
    return response


def _first_frames(framer: Framer, feed: WatchFeed, replayed: list[Event] | None) -> list[bytes]:
    store, call, collection = feed.store, feed.call, feed.view.resource.collection
    if call.since is None:
        frames = list(framer.initial(store, feed.namespace))
        return [*frames, framer.bookmark(store.revision, ends_initial=True)] if call.ends_initial else frames
    if replayed is None:
        message = f"too old resource version: {call.since} ({store.history.floor})"
        return [error_frame(status.expired(message))]
    wanted = (event for event in replayed if event.key.collection == collection)
    return list(framer.frames(e for e in wanted if not feed.namespace or e.key.namespace == feed.namespace))


async def send_logs(request: web.Request, pods: PodProvider, namespace: str, name: str) -> web.StreamResponse:
    """Send an instance's output as text."""
    query = request.query
    options, left = _log_options(query), _number(query, "limitBytes", 1)
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    chunks = pods.logs(namespace, name, options)
    chunk = await anext(chunks, None)  # an error is told by the answer's code, for which it must come first
    await response.prepare(request)
    while chunk is not None:
        await response.write(chunk if left is None else chunk[:left])
        left = None if left is None else left - len(chunk)
        if left is not None and left <= 0:
            break
        chunk = await anext(chunks, None)
    return response


def _log_options(query: Mapping[str, str]) -> LogOptions:
    """Read which part of the output is wanted."""
    since, moment = _number(query, "sinceSeconds", 1), query.get("sinceTime")
    if since is not None and moment:
        raise status.bad_request("at most one of `sinceTime` or `sinceSeconds` may be specified")
    return LogOptions(
        follow=_holds(query, "follow"),
        tail=_number(query, "tailLines", 0),
        since=since,
        since_time=_moment(moment) if moment else None,
        previous=_holds(query, "previous"),
        timestamps=_holds(query, "timestamps"),
    )


def _holds(query: Mapping[str, str], name: str) -> bool:
    return query.get(name) in {"true", "1"}


def _number(query: Mapping[str, str], name: str, least: int) -> int | None:
    text = query.get(name)
    if not text:
        return None
    try:
        found = int(text)
    except ValueError as error:
        raise status.bad_request(f"{name} is a number, not {text!r}") from error
    if found < least:
        raise status.bad_request(f"{name}: must be greater than or equal to {least}")
    return found


def _moment(text: str) -> float:
    """Read RFC 3339 into unix seconds."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise status.bad_request(f"sinceTime is a time as in RFC 3339, not {text!r}") from error
    return found.replace(tzinfo=found.tzinfo or UTC).timestamp()


async def run_exec(
    request: web.Request, pods: PodProvider, namespace: str, name: str
) -> web.WebSocketResponse:
    """Run a command inside an instance over a WebSocket; its exit code ends the session."""
    query = request.query
    command = query.getall("command", [])
    if not command:
        raise status.bad_request("you must specify at least 1 command for the container")
    try:
        session = await pods.exec(
            namespace, name, command, stdin=_holds(query, "stdin"), tty=_holds(query, "tty")
        )
    except Conflict as error:
        raise status.ApiError(409, "Conflict", str(error)) from error
    socket = web.WebSocketResponse(protocols=EXEC_PROTOCOLS, max_msg_size=1 << 20)
    try:
        await socket.prepare(request)
        reader = asyncio.create_task(_feed(socket, session))
        try:
            async for channel, chunk in session.output():
                await socket.send_bytes(bytes([channel]) + chunk)
            code = await session.wait()
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
        await socket.send_bytes(bytes([STATUS]) + json.dumps(_exit_status(code)).encode())
        await socket.close(code=WSCloseCode.OK)
    except (ConnectionError, CrucibleError):
        await socket.close(code=WSCloseCode.GOING_AWAY)
    finally:
        await session.close()
    return socket


async def _feed(socket: web.WebSocketResponse, session: ExecSession) -> None:
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == STDIN and data:
            await session.write(data)
        elif channel == RESIZE:
            await _resize(session, data)
        elif channel == CLOSE and data[:1] == bytes([STDIN]):
            await session.close_stdin()
    await session.close()


async def _resize(session: ExecSession, data: bytes) -> None:
    """Tell the command how large its terminal is; what cannot be read as that is passed over."""
    with suppress(ValueError, KeyError, TypeError):
        size = json.loads(data)
        await session.resize(int(size["Height"]), int(size["Width"]))


def _exit_status(code: int) -> dict[str, object]:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
