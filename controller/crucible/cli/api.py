"""The synchronous client of an API server that commands use: dicts in, dicts out."""

from __future__ import annotations

import json
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlencode

import urllib3

from crucible.cli.interrupts import prompt_interrupts
from crucible.control.answers import error_of
from crucible.control.tls import tls_of
from crucible.errors import CrucibleError, InvalidInput, NotFound, Unavailable
from crucible.model import names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from crucible.control.kubeconfig import Endpoint

APPLY_PATCH: Final = "application/apply-patch+yaml"
MERGE_PATCH: Final = "application/merge-patch+json"

_CONNECT: Final = 5.0
_READ: Final = 30.0
_ERROR: Final = 400
_UNAUTHORIZED: Final = 401
_CREATED: Final = 201
_CHUNK: Final = 65536
_NAMED: Final = 20
"""Plugins that are named to who asked for one that is not there."""


@dataclass(frozen=True, slots=True)
class Content:
    """The body of a request, and its media type."""

    body: object
    kind: str


class Api:
    """Talks to one API server. Use as a context manager."""

    def __init__(self, endpoint: Endpoint, *, connect: float = _CONNECT, read: float = _READ) -> None:
        self.server = endpoint.server
        self.namespace = endpoint.namespace
        self._connect = connect
        self._read = read
        self._headers = {"user-agent": "crucible-cli", "accept": "application/json"}
        if endpoint.token:
            self._headers["authorization"] = f"Bearer {endpoint.token}"
        secure: dict[str, Any] = (
            {"ssl_context": tls_of(endpoint)} if endpoint.server.startswith("https") else {}
        )
        self._pool = urllib3.PoolManager(retries=False, maxsize=8, **secure)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.clear()

    def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Read one object or a list."""
        with self._saying_what_is_there(path):
            return self._ask("GET", path, params)[1]

    def patch(
        self, path: str, body: object, kind: str = MERGE_PATCH, params: Mapping[str, str] | None = None
    ) -> tuple[bool, dict[str, Any]]:
        """Change an object; return whether that made it, and what it is now."""
        with self._saying_what_is_there(path):
            code, answer = self._ask("PATCH", path, params, Content(body, kind))
        return code == _CREATED, answer

    def delete(self, path: str, body: object = None) -> dict[str, Any]:
        """Ask for an object's deletion."""
        return self._ask("DELETE", path, None, Content(body, "application/json") if body else None)[1]

    @contextmanager
    def stream(
        self, path: str, params: Mapping[str, str] | None = None, *, endless: bool = True
    ) -> Iterator[Iterator[bytes]]:
        """Read an answer that arrives little by little, as lines without their ends.

        Args:
            path: of what is read.
            params: of the request.
            endless: wait for the next line as long as it takes.
        """
        with prompt_interrupts() if endless else nullcontext():
            response = self._send("GET", path, params, timeout=None if endless else self._read)
            try:
                yield self._lines(response)
            finally:
                response.close()  # an unfinished answer: the connection cannot be used again
                response.release_conn()

    @contextmanager
    def _saying_what_is_there(self, path: str) -> Iterator[None]:
        """Add to the word that a Plugin is not found which there are."""
        try:
            yield
        except NotFound as error:
            plugins, _, _ = path.rpartition("/")
            if not plugins.endswith(f"/{names.PLURAL}"):
                raise
            try:
                found = self._ask("GET", plugins, {"limit": str(_NAMED)})[1]
            except CrucibleError:  # not to be listed either: the first word stands
                raise error from None
            there = [str(item["metadata"]["name"]) for item in found.get("items") or ()]
            more = ", ..." if (found.get("metadata") or {}).get("continue") else ""
            known = f"there are: {', '.join(there)}{more}" if there else "there is none in this namespace"
            raise NotFound(f"{error}; {known} (crucible get -A lists all)") from None

    def _lines(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        rest = b""
        try:
            for chunk in _chunks(response):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"{self.server} hung up: {error}") from error
        if rest:
            yield rest

    def _ask(
        self, verb: str, path: str, params: Mapping[str, str] | None, content: Content | None = None
    ) -> tuple[int, dict[str, Any]]:
        response = self._send(verb, path, params, content, timeout=self._read)
        try:
            text = response.read()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"{self.server} hung up: {error}") from error
        finally:
            response.release_conn()
        try:
            answer: dict[str, Any] = json.loads(text)
        except ValueError:
            raise Unavailable(f"{self.server} is no API server: its answer is no JSON") from None
        return response.status, answer

    def _send(
        self,
        verb: str,
        path: str,
        params: Mapping[str, str] | None,
        content: Content | None = None,
        *,
        timeout: float | None,
    ) -> urllib3.BaseHTTPResponse:
        """Ask, and turn an answer that is an error into ours.

        Raises:
            CrucibleError: as the server's Status says; ``Unavailable`` where nothing answers.
        """
        query = f"?{urlencode(params)}" if params else ""
        try:
            response = self._pool.request(
                verb,
                f"{self.server}{path}{query}",
                body=json.dumps(content.body).encode() if content else None,
                headers=self._headers | ({"content-type": content.kind} if content else {}),
                preload_content=False,
                timeout=urllib3.Timeout(connect=self._connect, read=timeout),
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(
                f"{self.server} does not answer: {_reason(error)}; is the control plane up? "
                "Start it with 'crucible up'"
            ) from None
        if response.status < _ERROR:
            return response
        text = response.read().decode(errors="replace")
        response.release_conn()
        if response.status == _UNAUTHORIZED:
            raise InvalidInput(
                f"{self.server} does not know this identity: the kubeconfig may be another control plane's"
            )
        raise error_of(response.status, text)


def _chunks(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Yield what has arrived as it arrives."""
    while chunk := response.read1(_CHUNK):
        yield chunk


def _reason(error: Exception) -> str:
    """Return the system's own words, without the library's around them."""
    cause = error.__cause__ or error.__context__ or error
    return getattr(cause, "strerror", None) or str(cause).rpartition(": ")[2] or type(cause).__name__
