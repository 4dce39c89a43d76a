"""The ``docker`` SDK's client, asking an engine as directly as an engine can be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import docker
from docker.transport import UnixHTTPAdapter
from requests import PreparedRequest

if TYPE_CHECKING:
    from docker.transport.unixconn import UnixHTTPConnectionPool
    from requests import Response


class Client(docker.APIClient):
    """Takes an engine's answer for what it is: no redirect is followed, no cookie kept, no proxy looked for.

    The session below the SDK does all of it for every request, at more than what sending one takes.
    """

    def __init__(self, url: str, version: str, patience: int, parallel: int) -> None:
        """Prepare without asking anything.

        Args:
            url: where the engine listens.
            version: of its API.
            patience: seconds to wait for an answer.
            parallel: how many requests may be under way at the same time.
        """
        super().__init__(url, version=version, timeout=patience, num_pools=2, max_pool_size=parallel)
        if url.startswith("unix://"):
            self.mount(self.base_url, _Shared(url, patience, parallel))

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
            requests.RequestException: there is no answer.
        """
        asked = PreparedRequest()
        asked.prepare_method(method)
        asked.prepare_url(url, options.get("params"))
        asked.prepare_headers({**self.headers, **(options.get("headers") or {})})
        asked.prepare_body(options.get("data"), None, options.get("json"))
        stream = bool(options.get("stream"))
        response = self.get_adapter(url).send(
            asked, stream, options.get("timeout"), verify=bool(self.verify), cert=self.cert
        )
        if not stream:
            response.content  # noqa: B018 - reads it, and gives the connection back
        return response


class _Shared(UnixHTTPAdapter):
    """Lets all requests take turns on the same connections.

    The SDK keeps connections by address, and takes a request's whole path for one: each would connect anew.
    """

    def __init__(self, url: str, patience: int, parallel: int) -> None:
        super().__init__(url.removeprefix("unix://"), patience, 1, parallel)

    def get_connection(self, url: str | bytes, proxies: object = None) -> UnixHTTPConnectionPool:  # noqa: ARG002
        """Return the pool, whatever is asked for."""
        return super().get_connection("http+docker://localhost", proxies)
