"""What the nodes of a cluster say they can give to pods."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from crucible.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.runtimes.kubernetes.cluster import Cluster

log = logging.getLogger(__name__)

_SINCE: Final = 33
"""Minor version of Kubernetes 1 from which an API server takes user namespaces without being told to."""
_NODES: Final = "/api/v1/nodes"
_PAGE: Final = "100"


async def give_user_namespaces(cluster: Cluster, wanted: str) -> bool:
    """Whether pods are to have a user namespace of their own.

    A node that has none to give leaves such a pod waiting for ever, so that all of them have to.

    Args:
        cluster: asked only where that decides.
        wanted: ``on`` or ``off``; ``auto``: where every node says that it has them.
    """
    if wanted != "auto":
        return wanted == "on"
    if not _takes_them(await cluster.get("/version")):
        return False
    params, seen = {"limit": _PAGE}, 0
    while True:
        try:
            page = await cluster.get(_NODES, params)
        except (InvalidInput, NotFound) as error:
            log.info("no user namespaces: what nodes can give cannot be asked: %s", error)
            return False
        nodes = page.get("items") or []
        for node in nodes:
            if not has_user_namespaces(node):
                log.info("no user namespaces: node %s has none for pods", node["metadata"]["name"])
                return False
        seen += len(nodes)
        params["continue"] = str(page["metadata"].get("continue") or "")
        if not params["continue"]:
            return seen > 0


def _takes_them(version: Mapping[str, Any]) -> bool:
    """Whether pods may ask for a user namespace, from the answer to ``GET /version``."""
    minor = "".join(digit for digit in str(version.get("minor", "")) if digit.isdigit())
    return version.get("major") == "1" and bool(minor) and int(minor) >= _SINCE


def has_user_namespaces(node: Mapping[str, Any]) -> bool:
    """Whether a node's container runtime has user namespaces for pods; one of Windows runs none of ours."""
    status = node.get("status") or {}
    if (status.get("nodeInfo") or {}).get("operatingSystem") == "windows":
        return True
    return any(
        handler.get("name", "") == "" and (handler.get("features") or {}).get("userNamespaces") is True
        for handler in status.get("runtimeHandlers") or ()
    )
