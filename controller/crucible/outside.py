"""The bus of a cluster, from outside of it: through the API server, to a broker's loopback.

Who may come is who may forward ports to pods of the release's namespace: Kubernetes decides, and its audit
log names them. Inside of that it is TLS 1.3 to the broker, whose authority is read where brokers are.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from crucible.bus.host import Client, Streams
from crucible.control.client import Client as ApiClient
from crucible.control.forward import Forward
from crucible.errors import InvalidInput, NotFound, Unavailable, Unsupported
from crucible.model.door import Door
from crucible.runtimes.kubernetes import marks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crucible.control.kubeconfig import Endpoint

RELEASE: Final = "crucible-system"
"""The namespace that the chart is usually installed in."""
PORT: Final = "callers"
"""What the port is called in a broker's pod."""
_VALUE: Final = "bus.callers.namespaces"
BROKERS: Final = "app.kubernetes.io/part-of=crucible,app.kubernetes.io/component=bus"
"""Labels of their pods."""
_REACH: Final = 8.0
"""Seconds for one broker to be reached, before another is tried."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a broker is.

    Attributes:
        pod: its pod's name.
        port: on that pod's loopback.
    """

    pod: str
    port: int


class ClusterBus(Client):
    """A connection to the bus of a cluster, for one namespace, as its host application.

    Use as an async context manager. Entering raises ``Unavailable`` where no broker can be reached,
    ``Unsupported`` where none lets anybody in from outside, ``InvalidInput`` where this one is not let in.
    """

    def __init__(self, endpoint: Endpoint, release: str, namespace: str, place: Place | None = None) -> None:
        """Prepare.

        Args:
            endpoint: the API server, and whom to be there.
            release: namespace of the brokers.
            namespace: where to act.
            place: the broker to connect to; None: any that is ready.
        """
        super().__init__(self._reach, namespace)
        self._endpoint = endpoint
        self._release = release
        self._place = place
        self._tunnel = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            return await super().__aenter__()
        except BaseException:
            await self._tunnel.aclose()
            raise

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        await self._tunnel.aclose()

    async def _reach(self) -> Streams:
        async with ApiClient(self._endpoint) as api:
            places = [self._place] if self._place is not None else await places_of(api, self._release)
            trust = await _trust(api, self._release)
        problem: Unavailable | None = None
        for place in places:
            try:
                return await self._enter(place, trust)
            except Unavailable as error:  # another may be there
                problem = error
        raise problem or Unavailable("no broker is there")

    async def _enter(self, place: Place, trust: ssl.SSLContext) -> Streams:
        async with AsyncExitStack() as stack:
            forward = Forward(self._endpoint, self._release, place.pod, place.port)
            try:
                async with asyncio.timeout(_REACH):
                    await stack.enter_async_context(forward)
                    streams = await asyncio.open_unix_connection(
                        sock=forward.socket, ssl=trust, server_hostname=Door.BUS.value
                    )
            except (OSError, TimeoutError) as error:  # of which ssl.SSLError is one
                why = forward.problem or str(error) or "it does not answer in time"
                raise Unavailable(f"the broker {place.pod} cannot be reached: {why}") from error
            except NotFound as error:  # it went meanwhile
                raise Unavailable(f"the broker {place.pod} cannot be reached: {error}") from error
            except InvalidInput as error:
                raise InvalidInput(f"{error}: {_may(self._release)}") from error
            self._tunnel = stack.pop_all()
        return streams


async def every_bus(endpoint: Endpoint, release: str, namespace: str) -> list[ClusterBus]:
    """Return a connection to each broker that is ready; raises as :func:`places_of`."""
    async with ApiClient(endpoint) as api:
        places = await places_of(api, release)
    return [ClusterBus(endpoint, release, namespace, place) for place in places]


async def places_of(api: ApiClient, release: str) -> list[Place]:
    """Return where ready brokers are that people outside may come to, in no order.

    Raises:
        Unavailable: none is ready.
        Unsupported: there is none that lets in anybody from outside.
        InvalidInput: pods may not be listed there.
    """
    try:
        found = await api.get(f"/api/v1/namespaces/{release}/pods", {"labelSelector": BROKERS})
    except InvalidInput as error:
        raise InvalidInput(f"{error}: {_may(release)}") from error
    pods: Sequence[Mapping[str, Any]] = found["items"]
    if not pods:
        raise Unsupported(
            f"there is no broker in namespace {release}: install it with bus.enabled=true, or say with "
            "--release or CRUCIBLE_RELEASE where it is; of a control plane on this machine name the "
            "folder with --state"
        )
    open_to_us = {each["metadata"]["name"]: port for each in pods if (port := _port(each))}
    if not open_to_us:
        raise Unsupported(
            f"the broker in namespace {release} lets in nobody from outside: set {_VALUE} to the "
            "namespaces in which people may call plugins (helm upgrade)"
        )
    ready = [Place(name, open_to_us[name]) for each in pods if (name := _ready(each)) in open_to_us]
    if not ready:
        raise Unavailable(f"no broker in namespace {release} is ready")
    random.SystemRandom().shuffle(ready)
    return ready


def _port(pod: Mapping[str, Any]) -> int:
    ports = (port for each in pod["spec"]["containers"] for port in each.get("ports") or ())
    return next((int(port["containerPort"]) for port in ports if port.get("name") == PORT), 0)


def _ready(pod: Mapping[str, Any]) -> str:
    """Return a pod's name while it is ready and stays; else nothing."""
    said = (pod.get("status") or {}).get("conditions") or ()
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in said)
    return str(pod["metadata"]["name"]) if ready and "deletionTimestamp" not in pod["metadata"] else ""


async def _trust(api: ApiClient, release: str) -> ssl.SSLContext:
    """Return whom to believe, as it is told where brokers are: who may write there is trusted."""
    path = f"/api/v1/namespaces/{release}/configmaps/{marks.AUTHORITY}"
    try:
        found = await api.get(path)
    except NotFound:
        raise Unavailable(f"ConfigMap {marks.AUTHORITY} of {release} is not there yet") from None
    except InvalidInput as error:
        raise InvalidInput(f"{error}: {_may(release)}") from error
    try:
        context = ssl.create_default_context(cadata=str((found.get("data") or {})[marks.AUTHORITY_KEY]))
    except (KeyError, ValueError) as error:  # of which ssl.SSLError is one
        raise Unavailable(
            f"ConfigMap {marks.AUTHORITY} of {release} holds no certificate: {error}"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _may(release: str) -> str:
    return (
        f"bind the chart's Role for callers in namespace {release} to who calls (docs/bus.md, From outside)"
    )
