"""Which control plane a command talks to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from crucible.control.kubeconfig import default_path, load_endpoint
from crucible.errors import NotFound, Unavailable
from crucible.settings import Places, default_root

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from crucible.bus.host import Client
    from crucible.control.kubeconfig import Endpoint


@dataclass(frozen=True, slots=True)
class Access:
    """What the options of a command say about the control plane.

    Attributes:
        kubeconfig: file given with ``--kubeconfig``.
        context: of that file; None for its current one.
        namespace: given with ``--namespace``; None for the context's.
        state: folder of a local control plane, given with ``--state``.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None
    state: Path | None = None


def kubeconfig_of(access: Access, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the kubeconfig to use: the first of these that is given, or else exists.

    ``--kubeconfig``, ``--state``, ``$CRUCIBLE_KUBECONFIG``, ``$KUBECONFIG``, the local control plane's,
    ``~/.kube/config``.

    Raises:
        Unavailable: there is none at all.
    """
    if access.kubeconfig is not None:
        return access.kubeconfig
    if access.state is not None:
        return Places(access.state).kubeconfig
    if environment.get("CRUCIBLE_KUBECONFIG"):
        return Path(environment["CRUCIBLE_KUBECONFIG"])
    if environment.get("KUBECONFIG"):
        return default_path(environment)
    local = Places(default_root(environment)).kubeconfig
    for path in (local, default_path(environment)):
        if _there(path):
            return path
    raise Unavailable(
        f"no control plane is known: start one with 'crucible up', or name one with --kubeconfig "
        f"(looked at {local} and {default_path(environment)})"
    )


def endpoint_of(access: Access, environment: Mapping[str, str] = os.environ) -> Endpoint:
    """Return the API server to talk to, and as whom.

    Raises:
        Unavailable: there is no kubeconfig, or no such context in it.
        InvalidInput: it cannot be read as one.
        Unsupported: it signs in by a helper program.
    """
    try:
        return load_endpoint(kubeconfig_of(access, environment), access.context)
    except NotFound as error:
        raise Unavailable(str(error)) from None


@dataclass(frozen=True, slots=True)
class Buses:
    """The bus that a command means, as its host application: this machine's, or a cluster's.

    Attributes:
        namespace: where to act.
        any: a way to it.
        all: returns ways to each of its brokers; of a machine there is one.
    """

    namespace: str
    any: Client
    all: Callable[[], Awaitable[Sequence[Client]]]


def bus_of(access: Access, release: str | None = None) -> Client:
    """Return a way to the bus; raises as :func:`buses_of`."""
    return buses_of(access, release).any


def buses_of(
    access: Access, release: str | None = None, environment: Mapping[str, str] = os.environ
) -> Buses:
    """Return ways to the bus; of a cluster through its API server.

    Args:
        access: which control plane, and where to act.
        release: namespace of a cluster's brokers; None: ``$CRUCIBLE_RELEASE``, or the usual one.
        environment: variables.

    Raises:
        Unavailable: there is no control plane.
    """
    from crucible.bus.host import HostBus, door_beside  # noqa: PLC0415 - help does not need it

    endpoint, door = endpoint_of(access, environment), door_beside(kubeconfig_of(access, environment))
    namespace = access.namespace or endpoint.namespace
    if door is not None:
        bus = HostBus(door, namespace)

        async def alone() -> Sequence[Client]:
            return (bus,)

        return Buses(namespace, bus, alone)
    from crucible.outside import RELEASE, ClusterBus, every_bus  # noqa: PLC0415 - the same

    where = release or environment.get("CRUCIBLE_RELEASE") or RELEASE
    return Buses(
        namespace,
        ClusterBus(endpoint, where, namespace),
        partial(every_bus, endpoint, where, namespace),
    )


def _there(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError:
        return False
