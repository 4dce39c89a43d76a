"""HTTP: every request's way in, and every error's way out."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiohttp import ClientConnectionResetError, web

from crucible.errors import CrucibleError, NotFound, Unavailable, Unsupported

from . import status
from .connections import Connection
from .decode import PROTOBUF
from .documents import Documents, group_address
from .guard import check_request
from .handlers import Asked, answer
from .jsontypes import encode
from .keys import Key
from .metrics import GROUP as METRICS
from .metrics import send_metrics
from .negotiate import negotiate
from .reads import View, include_of
from .routes import read_path, refusal, resolve
from .selectors import FieldTerm
from .streams import WatchFeed, run_exec, send_logs, send_watch
from .watches import read_watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from .handlers import Answer, Site
    from .pods import PodProvider
    from .routes import Target
    from .settings import ServerSettings
    from .watch import Hub

_LOG = logging.getLogger(__name__)
LARGE = 256 * 1024
_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
_FIGURES = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8", "Cache-Control": "no-cache, private"}
_TRUE = frozenset({"true", "1", "True"})


class Frontend:
    """Turns HTTP requests into calls on a site."""

    token = ""

    def __init__(self, site: Site, hub: Hub, settings: ServerSettings, pods: PodProvider | None) -> None:
        self._site = site
        self._hub = hub
        self._settings = settings
        self._pods = pods
        self._documents = Documents()
        self._active = 0
        self.figures: Callable[[], str] | None = None

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(
            client_max_size=self._settings.max_body,
            handler_args={"max_line_size": 16384, "max_field_size": 16384},
        )
        app.router.add_route("*", "/{path:.*}", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; whatever goes wrong becomes a Status."""
        connection = request.transport.get_protocol() if request.transport else None
        if isinstance(connection, Connection):
            connection.heard()
        if self._active >= self._settings.max_requests:
            return _failure(_too_many())
        self._active += 1
        try:
            return await self._handle(request)
        except ClientConnectionResetError:
            return _Unheard()  # the client left amid its answer: nobody's fault, and there is nobody to tell
        except Exception as error:  # noqa: BLE001 - a defect of ours reaches clients as a Status, like all else
            return _failure(self._told(request, error))
        finally:
            self._active -= 1

    def _told(self, request: web.Request, error: Exception) -> status.ApiError:
        """Return what a client is told of an error."""
        match error:
            case status.ApiError():
                return error
            case web.HTTPRequestEntityTooLarge():
                return _too_large(self._settings.max_body)
            case TimeoutError():
                return status.ApiError(504, "Timeout", "the request took too long")
            case NotFound():
                return status.ApiError(404, "NotFound", str(error))
            case Unsupported():
                return status.ApiError(501, "NotImplemented", str(error))
            case CrucibleError():
                return status.ApiError(503 if error.retry else 500, "ServiceUnavailable", str(error))
        _LOG.error("cannot answer %s %s", request.method, request.path, exc_info=error)
        return status.ApiError(500, "InternalError", "an internal error occurred; the log has it")

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        has_certificate = bool(request.transport and request.transport.get_extra_info("peercert"))
        check_request(request.headers, self.token, has_certificate=has_certificate)
        path = request.path
        address = read_path(path) if path.startswith(("/api/", "/apis/")) else None
        if address is None:
            return self._document(request, path)
        target = resolve(address, self._site.catalog())
        if target is None:
            refused = refusal(address, request.method)
            if refused:
                raise refused
            return web.Response(status=404, text="404 page not found\n")
        if target.resource.plural == "pods" and target.subresource in {"log", "exec"}:
            return await self._pod_stream(request, target)
        if target.resource.group == METRICS:
            return await send_metrics(request, self._pods, target)
        if request.query.get("watch") in _TRUE and request.method == "GET":
            return await self._watch(request, target)
        async with asyncio.timeout(self._settings.request_timeout):
            return await self._answer(request, target)

    def _view(self, request: web.Request, target: Target) -> View:
        accepted = negotiate(request.headers.get("Accept", ""))
        return View(target.resource, accepted.form, include_of(request.query), _utc)

    async def _answer(self, request: web.Request, target: Target) -> web.StreamResponse:
        length = request.content_length or 0
        if length > self._settings.max_body:
            raise _too_large(self._settings.max_body)
        asked = Asked(
            method=request.method,
            target=target,
            query=request.query,
            media_type=_media_type(request),
            raw=await request.read() if request.body_exists else b"",
            user_agent=request.headers.get("User-Agent", ""),
            view=self._view(request, target),
        )
        found = await answer(self._site, asked)
        if len(found.body) > LARGE:
            return await _send_large(request, found)
        response = _json(found.code, found.body)
        for warning in found.warnings:
            response.headers.add("Warning", _warning(warning))
        return response

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        if "watch" not in target.resource.verbs or target.subresource:
            raise status.method_not_allowed()
        view = self._view(request, target)
        call = read_watch(request.query, view)
        if target.name:
            term = FieldTerm(("metadata", "name"), target.name, equal=True)
            selector = type(call.selector)(call.selector.labels, (*call.selector.fields, term))
            call = type(call)(selector, call.since, call.bookmarks, call.ends_initial, call.timeout)
        feed = WatchFeed(self._site.store, self._hub, call, view, target.namespace, self._settings)
        return await send_watch(request, feed)

    async def _pod_stream(self, request: web.Request, target: Target) -> web.StreamResponse:
        key = Key("pods", target.namespace, target.name)
        if self._pods is None or self._site.store.get(key) is None:
            raise status.not_found("pods", "", target.name)
        if target.subresource == "log":
            return await send_logs(request, self._pods, target.namespace, target.name)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise status.bad_request("exec needs a WebSocket (kubectl 1.31 or later)")
        return await run_exec(request, self._pods, target.namespace, target.name)

    def _document(self, request: web.Request, path: str) -> web.Response:
        if request.method not in {"GET", "HEAD"}:
            refused = refusal(read_path(path), request.method)
            raise refused or status.method_not_allowed()
        if path in {"/readyz", "/livez", "/healthz"}:
            return web.Response(text="ok")
        if path == "/metrics":
            return self._metrics()
        parts = path.strip("/").split("/")
        accepted = (
            negotiate(request.headers.get("Accept", ""), discovery=True)
            if path in {"/api", "/apis"}
            else None
        )
        form = accepted.form if accepted else "object"
        found = self._documents.find(self._site.catalog(), tuple(parts), form, request.host)
        if found is None:
            refused = refusal(group_address(parts), "GET")
            if refused:
                raise refused
            return web.Response(status=404, text="404 page not found\n")
        body, tag = found
        headers = {"ETag": tag, "Vary": "Accept", "Cache-Control": "no-cache, private"}
        headers["Content-Type"] = accepted.content_type if accepted else "application/json"
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers=headers)

    def _metrics(self) -> web.Response:
        """Tell Prometheus what the controller in this process tells of itself and of Plugins."""
        if self.figures is None:
            raise Unavailable("there are no figures before Plugins are supervised: ask again in a moment")
        return web.Response(body=self.figures().encode(), headers=_FIGURES)


def _media_type(request: web.Request) -> str:
    given = request.headers.get("Content-Type", "")
    return PROTOBUF if given.startswith(PROTOBUF) else given.partition(";")[0].strip().lower()


def _json(code: int, body: bytes) -> web.Response:
    return web.Response(status=code, body=body, headers=_HEADERS)


async def _send_large(request: web.Request, found: Answer) -> web.StreamResponse:
    """Send a long body in pieces, so that no one write holds the loop."""
    response = web.StreamResponse(status=found.code, headers=_HEADERS)
    response.content_length = len(found.body)
    await response.prepare(request)
    view = memoryview(found.body)
    for at in range(0, len(view), LARGE):
        await response.write(view[at : at + LARGE])
    return response


class _Unheard(web.Response):
    """The answer to nobody: aiohttp ends the connection then, and takes it for no defect of ours."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Say that it cannot be sent."""
        raise ConnectionResetError(f"{request.remote} has left")


def _failure(error: status.ApiError) -> web.Response:
    response = _json(error.code, encode(error.body()))
    if error.code == 429:  # noqa: PLR2004 - the one code that must say when to come back
        response.headers["Retry-After"] = "1"
    if error.code == 401:  # noqa: PLR2004 - the one code that must say how to authenticate
        response.headers["WWW-Authenticate"] = "Bearer"
        response.force_close()  # a stranger gets one question
    return response


def _too_many() -> status.ApiError:
    message = "too many requests at once, please try again later"
    return status.ApiError(429, "TooManyRequests", message, {"retryAfterSeconds": 1})


def _too_large(limit: int) -> status.ApiError:
    message = f"Request entity too large: limit is {limit}"
    return status.ApiError(413, "RequestEntityTooLarge", message)


def _warning(text: str) -> str:
    plain = "".join(char if char.isascii() and char.isprintable() else "?" for char in text)
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'


def _utc() -> datetime:
    return datetime.now(UTC)
