"""The ``docker`` SDK's client, asking an engine as directly as an engine can be asked."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import docker
from docker import auth, errors
from docker.utils import config, decode_json_header
from requests import PreparedRequest, Response
from requests.structures import CaseInsensitiveDict

from crucible.errors import InvalidSource, Unavailable
from crucible.runtimes.docker.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNREADABLE: Final = (errors.InvalidConfigFile, ValueError, LookupError, TypeError, AttributeError)
"""What the SDK raises for files, and answers of credential helpers, that are not what they should be."""


class Client(docker.APIClient):
    """Takes an engine's answer for what it is: no redirect is followed, no cookie kept, no proxy looked for.

    The session below the SDK does all of it for every request, at more than what sending one takes. Over a
    Unix socket, what is answered whole does not pass through it at all.
    """

    def __init__(self, url: str, version: str, patience: int, parallel: int) -> None:
        """Prepare without asking anything.

        Args:
            url: where the engine listens.
            version: of its API.
            patience: seconds to wait for an answer.
            parallel: how many requests may be under way at the same time.

        Raises:
            Unavailable: what ``docker login`` wrote cannot be read.
        """
        try:
            auth.load_config()  # as the SDK does, where it cannot be told from what else goes wrong
        except _UNREADABLE as error:
            raise Unavailable(
                f"{_file()} is no configuration of Docker's ({error}): mend it, or move it away and "
                "`docker login` again"
            ) from error
        super().__init__(url, version=version, timeout=patience, num_pools=2, max_pool_size=parallel)
        here = url.startswith("unix://")
        self._transport = Transport(url.removeprefix("unix://")) if here else None

    def request(  # type: ignore[override]
        self,
        method: str,
        url: str,
        **options: Any,  # noqa: ANN401 - whatever the SDK says
    ) -> Response:
        """Send one request, and return its answer.

        Args:
            method: the verb.
            url: where to.
            options: of ``requests``, those the SDK uses: ``params``, ``headers``, ``data``, ``json``,
                ``timeout`` and ``stream``.

        Raises:
            OSError: there is no answer; ``requests.RequestException`` is one.
        """
        stream, data = bool(options.get("stream")), options.get("data")
        plain = not stream and options.get("json") is None and (data is None or isinstance(data, str | bytes))
        if plain and self._transport is not None:
            return self._ask(self._transport, method, url, options)
        asked = PreparedRequest()
        asked.prepare_method(method)
        asked.prepare_url(url, options.get("params"))
        asked.prepare_headers({**self.headers, **(options.get("headers") or {})})
        asked.prepare_body(data, None, options.get("json"))
        response = self.get_adapter(url).send(
            asked, stream, options.get("timeout"), verify=bool(self.verify), cert=self.cert
        )
        if not stream:
            response.content  # noqa: B018 - reads it, and gives the connection back
        return response

    def _ask(self, transport: Transport, method: str, url: str, options: Mapping[str, Any]) -> Response:
        params = {name: value for name, value in (options.get("params") or {}).items() if value is not None}
        target = url.removeprefix(self.base_url) + (f"?{urlencode(params, doseq=True)}" if params else "")
        headers = {"User-Agent": str(self.headers["User-Agent"]), **(options.get("headers") or {})}
        data = options.get("data") or b""
        body = data.encode() if isinstance(data, str) else data
        answer = transport.ask(method.upper(), target, headers, body, options.get("timeout"))
        response = Response()
        response.status_code, response.reason = answer.status, answer.reason
        response.url, response.encoding = url, "utf-8"
        response.headers = CaseInsensitiveDict(answer.headers)
        response._content = answer.body  # noqa: SLF001 - it has been read
        return response

    def stat(self, container: str, path: str) -> Mapping[str, Any] | None:
        """Return what there is at a path of a container, as ``os.FileInfo`` of Go has it; None: nothing.

        The SDK asks for the archive of it, too. One that is not read to its end keeps an engine from deleting
        the container.

        Raises:
            OSError: the engine does not answer.
            docker.errors.APIError: it cannot tell.
        """
        url = f"{self.base_url}/v{self.api_version}/containers/{container}/archive"
        answer = self.head(url, params={"path": path}, timeout=self.timeout)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return None
        if answer.status_code != HTTPStatus.OK:
            raise errors.APIError(f"{path} cannot be looked at", answer)
        found: dict[str, Any] = decode_json_header(answer.headers["X-Docker-Container-Path-Stat"])
        return found

    def close(self) -> None:
        """Close the connections that nobody uses now."""
        super().close()
        if self._transport is not None:
            self._transport.close()


def credentials(reference: str) -> dict[str, Any]:
    """Return what ``docker login`` or a credential helper has for an image's registry; empty for nothing.

    Raises:
        InvalidSource: the helper that Docker's configuration names does not say.
        docker.errors.DockerException: the image has no such name.
    """
    registry, _ = auth.resolve_repository_name(reference.partition("@")[0])
    try:
        return dict(auth.load_config().resolve_authconfig(registry) or {})
    except (errors.DockerException, *_UNREADABLE) as error:
        raise InvalidSource(
            f"there are no credentials for {registry}: the helper that {_file()} names for it does not work "
            f"({error}): install it for the user who runs the controller, or remove it from there"
        ) from error


def _file() -> str:
    return str(config.find_config_file())
