"""Nothing is done to a container or a network that only has the name of one of ours, or only its labels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from docker import errors

from crucible.errors import Conflict
from crucible.runtimes.docker import network as bodies
from crucible.runtimes.docker.ownership import GONE, clear_container, drop_network, have_network

NETWORK = bodies.network_arguments("plane", "uid", (80,))
RELAY = bodies.relay_labels("plane", "uid")
NAME = bodies.relay_name("plane", "uid")


class Engine:
    """As much of an engine as has containers and networks."""

    def __init__(self) -> None:
        self.containers: dict[str, dict[str, str]] = {}
        self.networks: dict[str, dict[str, Any]] = {}

    def inspect_container(self, name: str) -> dict[str, Any]:
        if name not in self.containers:
            raise errors.NotFound("no such container")
        return {"Id": f"id-{name}", "Config": {"Labels": self.containers[name]}}

    def remove_container(self, ident: str, *, force: bool) -> None:
        assert force
        del self.containers[ident.removeprefix("id-")]

    def create_network(self, name: str, labels: dict[str, str], *, internal: bool = False, **_: Any) -> None:
        if name in self.networks:
            raise errors.APIError("there already", SimpleNamespace(status_code=409))  # type: ignore[arg-type]
        self.networks[name] = {"Id": f"id-{name}", "Labels": labels, "Internal": internal}

    def inspect_network(self, name: str) -> dict[str, Any]:
        if name not in self.networks:
            raise errors.NotFound("no such network")
        return self.networks[name]

    def remove_network(self, ident: str) -> None:
        del self.networks[ident.removeprefix("id-")]


@pytest.fixture
def engine() -> Any:
    return Engine()


@pytest.mark.parametrize(
    "labels",
    [
        {},
        RELAY | {"dev.crucible.control-plane": "other"},
        RELAY | {"dev.crucible.plugin-uid": "other"},
        RELAY | {"dev.crucible.role": "instance"},
    ],
)
def test_a_container_of_our_name_that_is_not_ours_is_left_alone(engine: Any, labels: dict[str, str]) -> None:
    engine.containers[NAME] = labels
    with pytest.raises(Conflict, match=f"not ours is named {NAME}: rename or remove it"):
        clear_container(engine, NAME, RELAY)
    assert engine.containers == {NAME: labels}


def test_our_own_container_is_removed_and_none_is_as_good(engine: Any) -> None:
    engine.containers = {NAME: RELAY | {"more": "labels"}, "other": {}}
    clear_container(engine, NAME, RELAY)
    clear_container(engine, NAME, RELAY)
    assert engine.containers == {"other": {}}


@pytest.mark.parametrize(
    "change",
    [
        {"Labels": None},
        {"Labels": NETWORK["labels"] | {"dev.crucible.control-plane": "other"}},
        {"Labels": NETWORK["labels"] | {"dev.crucible.plugin-uid": "other"}},
        {"Internal": False},
    ],
)
def test_a_network_of_our_name_that_is_not_ours_or_leads_out_is_neither_used_nor_removed(
    engine: Any, change: dict[str, Any]
) -> None:
    have_network(engine, NETWORK)
    engine.networks[NETWORK["name"]] |= change
    before = dict(engine.networks)
    for act in (lambda: have_network(engine, NETWORK), lambda: drop_network(engine, NETWORK, GONE)):
        with pytest.raises(Conflict, match="a network that is not ours is named"):
            act()
    assert engine.networks == before


def test_our_own_network_is_made_once_used_again_and_removed(engine: Any) -> None:
    for arguments in (NETWORK, bodies.edge_arguments("plane")):
        have_network(engine, arguments)
        have_network(engine, arguments)
        assert list(engine.networks) == [arguments["name"]]
        drop_network(engine, arguments, GONE)
        drop_network(engine, arguments, GONE)
        assert engine.networks == {}
