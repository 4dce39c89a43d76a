"""Whether pods are given user namespaces: only where no node would leave one waiting for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from crucible.errors import InvalidInput, NotFound, Unavailable
from crucible.runtimes.kubernetes.nodes import give_user_namespaces

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.errors import CrucibleError

NEW = {"major": "1", "minor": "36+"}


def node(name: str = "a", *handlers: tuple[str, bool], system: str = "linux") -> dict[str, Any]:
    """Return a node as a kubelet reports it: its handlers, and whether each has user namespaces."""
    found = [{"name": each, "features": {"userNamespaces": has}} for each, has in handlers]
    return {
        "metadata": {"name": name},
        "status": {"nodeInfo": {"operatingSystem": system}, "runtimeHandlers": found},
    }


HAS = node("has", ("", True), ("runc", True))
LACKS = node("lacks", ("", False), ("runc", False))


class Server:
    """Has a version, and pages of nodes or a refusal."""

    def __init__(self, version: Mapping[str, Any], *pages: list[dict[str, Any]] | CrucibleError) -> None:
        self.version = version
        self.pages = pages
        self.asked: list[str] = []

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        self.asked.append(path)
        if path == "/version":
            return dict(self.version)
        assert path == "/api/v1/nodes"
        number = int((params or {}).get("continue") or 0)
        page = self.pages[number]
        if isinstance(page, Exception):
            raise page
        more = str(number + 1) if number + 1 < len(self.pages) else ""
        return {"metadata": {"continue": more}, "items": page}


async def given(server: Server, wanted: str = "auto") -> bool:
    return await give_user_namespaces(server, wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("version", "pages", "gives"),
    [
        (NEW, [[HAS]], True),
        (NEW, [[HAS], [HAS]], True),
        (NEW, [[HAS], [LACKS]], False),
        (NEW, [[LACKS, HAS]], False),
        (NEW, [[]], False),
        (NEW, [[node("old")]], False),
        (NEW, [[{"metadata": {"name": "new"}}]], False),
        (NEW, [[node("other", ("runc", True))]], False),
        (NEW, [[HAS, node("w", system="windows")]], True),
        (NEW, [InvalidInput("nodes is forbidden")], False),
        (NEW, [NotFound("no nodes here")], False),
        ({"major": "1", "minor": "32"}, [[HAS]], False),
        ({"major": "2", "minor": "40"}, [[HAS]], False),
        ({}, [[HAS]], False),
    ],
)
async def test_they_are_given_where_the_server_takes_them_and_every_node_has_them(
    version: dict[str, str], pages: list[Any], *, gives: bool
) -> None:
    assert await given(Server(version, *pages)) is gives


@pytest.mark.parametrize(("wanted", "gives"), [("on", True), ("off", False)])
async def test_what_is_said_needs_no_question(wanted: str, *, gives: bool) -> None:
    server = Server(NEW, [LACKS])
    assert await given(server, wanted) is gives
    assert not server.asked


async def test_a_server_that_does_not_answer_has_not_said_no() -> None:
    with pytest.raises(Unavailable):
        await given(Server(NEW, [HAS], Unavailable("503")))
