"""Which control plane a command talks to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crucible.control.kubeconfig import default_path, load_endpoint
from crucible.errors import NotFound, Unavailable, Unsupported
from crucible.model.door import Door, socket_name
from crucible.settings import Places, default_root

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def bus_of(access: Access, environment: Mapping[str, str] = os.environ) -> tuple[Path, str]:
    """Return the host application's door to the bus, and the namespace to act in.

    Raises:
        Unavailable: there is no control plane.
        Unsupported: it is not one of this machine.
    """
    namespace = access.namespace or endpoint_of(access, environment).namespace
    kubeconfig = kubeconfig_of(access, environment).absolute()
    places = Places(kubeconfig.parents[1])
    if kubeconfig != places.kubeconfig:
        raise Unsupported(
            f"{kubeconfig} is not the kubeconfig of a local control plane, whose bus lies beside it: "
            "name its state folder with --state"
        )
    return places.host / socket_name(Door.BUS), namespace


def _there(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError:
        return False
