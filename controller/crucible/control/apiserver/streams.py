"""Answers that go on: watches, logs and exec sessions."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import WSCloseCode, WSMsgType, web

from crucible.errors import CrucibleError

from . import status
from .pods import LogOptions
from .watches import Framer, error_frame

if TYPE_CHECKING:
    from .keys import Event
    from .pods import ExecSession, PodProvider
    from .reads import View
    from .settings import ServerSettings
    from .store import Store
    from .watch import Hub
    from .watches import WatchCall

STDIN, STDOUT, STDERR, STATUS, CLOSE = 0, 1, 2, 3, 255
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
    tail, since = query.get("tailLines"), query.get("sinceSeconds")
    try:
        options = LogOptions(
            follow=query.get("follow") in {"true", "1"},
            tail=int(tail) if tail else None,
            since=float(since) if since else None,
            previous=query.get("previous") in {"true", "1"},
            timestamps=query.get("timestamps") in {"true", "1"},
        )
    except ValueError as error:
        raise status.bad_request(f"tailLines and sinceSeconds are numbers: {error}") from error
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    chunks = pods.logs(namespace, name, options)
    first = await anext(chunks, b"")
    await response.prepare(request)
    if first:
        await response.write(first)
    async for chunk in chunks:
        await response.write(chunk)
    return response


async def run_exec(
    request: web.Request, pods: PodProvider, namespace: str, name: str
) -> web.WebSocketResponse:
    """Run a command inside an instance over a WebSocket; its exit code ends the session."""
    query = request.query
    command = query.getall("command", [])
    if not command:
        raise status.bad_request("you must specify at least 1 command for the container")
    wants_stdin = query.get("stdin") in {"true", "1"}
    session = await pods.exec(
        namespace, name, command, stdin=wants_stdin, tty=query.get("tty") in {"true", "1"}
    )
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
        elif channel == CLOSE and data[:1] == bytes([STDIN]):
            await session.close_stdin()
    await session.close()


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
