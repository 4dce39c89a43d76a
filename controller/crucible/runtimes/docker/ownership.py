"""Makes and removes containers and networks by name, and never touches one that is somebody else's.

A name alone proves nothing, and labels alone neither: both have to be those that we give. For threads of
the pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from docker import errors

from crucible.errors import Conflict
from crucible.runtimes.docker import labels as marks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import docker

GONE: Final = frozenset({304, 404, 409})
"""Answers that mean it is so already: not modified, not there, not running."""
IN_USE: Final = frozenset({403})
_THERE_ALREADY: Final = frozenset({403, 409})
_WHOSE: Final = (marks.CONTROL_PLANE, marks.PLUGIN_UID, marks.ROLE)


def clear_container(client: docker.APIClient, name: str, labels: Mapping[str, str]) -> None:
    """Remove the container of a name, if there is one.

    Raises:
        Conflict: it does not bear these labels: it is somebody else's.
    """
    try:
        found = client.inspect_container(name)
    except errors.NotFound:
        return
    if not _are_ours(found["Config"], labels):
        raise Conflict(f"a container that is not ours is named {name}: rename or remove it")
    tolerate(GONE, client.remove_container, found["Id"], force=True)


def have_network(client: docker.APIClient, arguments: Mapping[str, Any]) -> None:
    """Make a network; one of ours that is there is as good.

    Raises:
        Conflict: somebody else's has the name.
    """
    if not tolerate(_THERE_ALREADY, client.create_network, **arguments):
        _network_of(client, arguments)


def drop_network(client: docker.APIClient, arguments: Mapping[str, Any], as_good: frozenset[int]) -> None:
    """Remove the network that was made with these arguments, if it is there.

    Raises:
        Conflict: somebody else's has the name.
    """
    found = _network_of(client, arguments)
    if found:
        tolerate(as_good, client.remove_network, found)


def _network_of(client: docker.APIClient, arguments: Mapping[str, Any]) -> str:
    """Return its id; empty: there is none."""
    name = arguments["name"]
    try:
        found = client.inspect_network(name)
    except errors.NotFound:
        return ""
    alike = bool(found.get("Internal")) == bool(arguments.get("internal"))
    if not (alike and _are_ours(found, arguments["labels"])):
        raise Conflict(f"a network that is not ours is named {name}: remove it")
    return str(found["Id"])


def _are_ours(found: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    there = found.get("Labels") or {}
    return all(there.get(name) == labels.get(name) for name in _WHOSE)


def tolerate(codes: frozenset[int], function: Callable[..., object], *words: str, **options: Any) -> bool:  # noqa: ANN401
    """Ask for what may be so already: answers with these codes are as good. Return whether it was done."""
    try:
        function(*words, **options)
    except errors.APIError as error:
        if error.status_code not in codes:
            raise
        return False
    return True
