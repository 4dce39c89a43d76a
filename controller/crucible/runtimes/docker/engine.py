"""Talks to the engine: a bounded pool of threads over the ``docker`` SDK, and its errors in our words."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar
from urllib.parse import urlsplit

import requests
from docker import errors

from crucible.core.bpf import AUDIT_ARCH
from crucible.errors import Unavailable
from crucible.runtimes.docker.client import Client
from crucible.runtimes.docker.enforcement import vm_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crucible.runtimes.docker.settings import DockerSettings

OLDEST: Final = (1, 41)
NEWEST: Final = (1, 47)
"""Versions of Docker's API this runtime is written to."""
USUAL_SOCKET: Final = "unix:///var/run/docker.sock"

_SCHEMES: Final = frozenset({"unix", "http+unix", "tcp", "http", "https"})
_KNOCK_SECONDS: Final = 5.0

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the engine said of itself.

    Attributes:
        version: its own.
        api: the version spoken with it.
        info: the answer to ``GET /info``.
    """

    version: str
    api: str
    info: dict[str, Any]


class Engine:
    """One engine, and the threads that wait for its answers."""

    def __init__(self, settings: DockerSettings) -> None:
        self.url = settings.url or os.environ.get("DOCKER_HOST") or USUAL_SOCKET
        self._settings = settings
        self._pool = ThreadPoolExecutor(settings.parallel, thread_name_prefix="docker")
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="docker-aside")
        self._client: Client | None = None
        self.vm_runtime = ""
        self.machines = tuple(AUDIT_ARCH)

    @property
    def client(self) -> Client:
        """The connected client.

        Raises:
            Unavailable: not connected.
        """
        if self._client is None:
            raise Unavailable(f"the Docker engine at {self.url} was never reached")
        return self._client

    async def connect(self) -> Facts:
        """Find out what speaks there, and agree on a version of the API.

        Raises:
            Unavailable: nothing, something too old or too new, or it does not let us.
        """
        return await self.call(self._connect)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function in the pool; the answers that are about the request pass as they are.

        Raises:
            Unavailable: no answer, or one about the engine.
            docker.errors.APIError: any other answer.
        """
        job = functools.partial(self.run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, job)

    async def call_aside(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As :meth:`call`, and never behind what the pool has to do: a busy engine is not a silent one."""
        job = functools.partial(self.run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._aside, job)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function here; errors as :meth:`call` has them."""
        try:
            return function(*args, **kwargs)
        except errors.APIError as error:
            trouble = trouble_of(error)
            if trouble is None:
                raise
            raise Unavailable(trouble) from error
        except (errors.DockerException, requests.RequestException, OSError) as error:
            raise Unavailable(unreachable(self.url, error)) from error

    def another(self, timeout: int | None = None) -> Client:
        """Return a client of its own for a thread that waits long.

        Raises:
            Unavailable: not connected.
        """
        patience = self._settings.patience if timeout is None else timeout
        return Client(self.url, self.client.api_version, patience, 1)

    def close(self) -> None:
        """End the threads and the connections."""
        for pool in (self._pool, self._aside):
            pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def _connect(self) -> Facts:
        refuse_address(self.url)
        refuse_plain(self.url, os.environ)
        knock(self.url)
        patience = min(self._settings.patience, 5)
        with contextlib.closing(Client(self.url, "1.24", patience, 1)) as first:
            found = first.version(api_version=False)
        if not isinstance(found, dict):
            raise Unavailable(f"what answers at {self.url} is no Docker engine")
        refuse_imitation(found)
        api = agreed(str(found.get("MinAPIVersion", "1.24")), str(found.get("ApiVersion", "1.0")))
        client = Client(self.url, api, self._settings.patience, self._settings.parallel)
        facts = Facts(found.get("Version", "?"), api, client.info())
        self.vm_runtime = vm_runtime(facts.info)
        self.machines = machines(facts.info)
        # The engine may have come back as another version; what is under way keeps the client it has.
        before, self._client = self._client, client
        if before is not None:
            before.close()
        return facts


def machines(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the kind of machine an engine runs on, as kernels name it; every kind where that is unclear."""
    said = str(info.get("Architecture", ""))
    return (said,) if said in AUDIT_ARCH else tuple(AUDIT_ARCH)


def shut(stream: object) -> None:
    """Close a stream that the SDK handed out, to the last descriptor; nobody reads it any more."""
    response = getattr(stream, "_response", None)
    if response is not None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            response.close()


def refuse_plain(url: str, environment: Mapping[str, str]) -> None:
    """Refuse to say in plain text what the environment wants said by TLS, which is not set up here.

    Raises:
        Unavailable: it wants that.
    """
    if environment.get("DOCKER_TLS_VERIFY") and not url.startswith("unix://"):
        raise Unavailable(
            f"DOCKER_TLS_VERIFY wants {url} to be spoken to by TLS, which is not done here, and in plain "
            "text it is not spoken to: set DOCKER_HOST to a socket of this machine, or use --runtime process"
        )


def refuse_imitation(found: Mapping[str, Any]) -> None:
    """Refuse an engine that speaks the API and means other things by it.

    Podman takes a system call profile only as a file, knows no owner of a tmpfs, tells ends by
    other events and keeps output's times to the second.

    Raises:
        Unavailable: it is one of those.
    """
    names = [str(part.get("Name", "")) for part in found.get("Components") or ()]
    if any("podman" in name.lower() for name in names):
        raise Unavailable(
            "this is Podman, whose Docker API differs where plugins are held and watched: "
            "set DOCKER_HOST to a Docker engine, or use --runtime process"
        )


def agreed(oldest: str, newest: str) -> str:
    """Return the newest version of the API that both sides speak.

    Raises:
        Unavailable: there is none.
    """
    low, high = _version(oldest), _version(newest)
    if high < OLDEST:
        raise Unavailable(
            f"the engine is too old: it speaks Docker's API {newest}, and {_text(OLDEST)} is needed: "
            "upgrade to Docker 20.10 or newer"
        )
    if low > NEWEST:
        raise Unavailable(
            f"the engine is too new: it speaks Docker's API from {oldest} on, "
            f"and this release speaks {_text(NEWEST)}: upgrade crucible"
        )
    return _text(min(high, NEWEST))


def refuse_address(url: str) -> None:
    """Refuse what is no address of an engine, or one that is not spoken to here.

    Raises:
        Unavailable: it is that.
    """
    try:
        scheme, port = urlsplit(url).scheme if "://" in url else "tcp", urlsplit(url).port
    except ValueError:
        scheme, port = "", None
    if scheme not in _SCHEMES or port == 0:
        raise Unavailable(
            f"no Docker engine is reached at {url} from here: set DOCKER_HOST to unix://PATH or tcp://HOST:PORT"
        )


def knock(url: str) -> None:
    """Try the engine's socket, where it has one on this host: the system's own word says best what is wrong.

    Raises:
        OSError: nobody listens, or it does not let us.
    """
    if url.startswith("unix://"):
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as caller:
            caller.settimeout(_KNOCK_SECONDS)
            caller.connect(url.removeprefix("unix://"))


def unreachable(url: str, error: BaseException) -> str:
    """Say why nobody answered, and what to do."""
    text = str(error)
    if isinstance(error, PermissionError) or "Permission denied" in text:
        path = url.removeprefix("unix://")
        return (
            f"no permission to use the Docker engine at {path}: add your user to the group that owns it "
            "(`usermod -aG docker $USER`, then log in again), or set DOCKER_HOST to an engine of yours"
        )
    if isinstance(error, requests.ReadTimeout | TimeoutError) or "timed out" in text:
        return silent(url)
    if any(word in text for word in ("No such file", "refused", "aborted", "reset by peer", "Broken pipe")):
        return (
            f"no Docker engine answers at {url}: start it (`systemctl start docker`), "
            "or set DOCKER_HOST to where one listens"
        )
    return f"the Docker engine at {url} cannot be reached: {text}"


def silent(url: str) -> str:
    """Say that an engine is there and does not answer."""
    return f"the Docker engine at {url} does not answer in time: look at its log, or restart it"


def trouble_of(error: errors.APIError) -> str | None:
    """Return what is wrong with the engine itself, if that is why it refused; None where the request was."""
    text = str(error.explanation or error)
    if "no space left on device" in text:
        return f"the disk of the Docker engine is full: free some, see `docker system df` ({text[:512]})"
    if error.status_code is not None and error.status_code >= _SERVER_ERROR and "context" in text:
        return f"the Docker engine gave up on a request: {text}"
    return None


_SERVER_ERROR: Final = 500


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    if not (major.isdecimal() and (minor or "0").isdecimal()):
        raise Unavailable(f"what answers is no Docker engine: it calls its API {text!r:.40}")
    return int(major), int(minor or 0)


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
