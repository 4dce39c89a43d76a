"""Looks at endpoints that someone else runs, over HTTP."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Self

import aiohttp

from crucible.model.world import Reach

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

FRESH: Final = 8.0
"""Seconds for which an answer counts: a loop that is woken for another reason asks nobody."""
PATIENCE: Final = 5.0
"""Seconds an endpoint has to answer."""
_BROKEN: Final = 500


class HttpEndpoints:
    """Asks endpoints for their headers; an answer below 500 means that they serve.

    Redirects are not followed and bodies are not read, so an endpoint can neither send the controller
    elsewhere nor fill its memory.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, tuple[float, Reach]] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Begin."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=PATIENCE),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "crucible"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every connection."""
        if self._session is not None:
            await self._session.close()

    async def reach(self, url: str) -> Reach:
        """Return whether an endpoint answers, asking it at most once every few seconds."""
        now = self._clock()
        self._known = {key: entry for key, entry in self._known.items() if now - entry[0] < FRESH}
        if url not in self._known:
            self._known[url] = (now, await self._ask(url))
        return self._known[url][1]

    async def _ask(self, url: str) -> Reach:
        if self._session is None:
            raise RuntimeError("not open")
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status < _BROKEN:
                    return Reach(ok=True, message=f"{url} answers")
                return Reach(ok=False, message=f"{url} answers with status {answer.status}")
        except TimeoutError:
            return Reach(ok=False, message=f"{url} did not answer within {PATIENCE:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Reach(ok=False, message=f"{url} cannot be reached: {error}"[:1024])
