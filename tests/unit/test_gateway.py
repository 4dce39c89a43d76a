"""The egress proxy of a cluster: how a speed is shared, and which Service the operator takes for its."""

from __future__ import annotations

from typing import Any

import pytest

from crucible.errors import CrucibleError, InvalidInput, NotFound, Unavailable
from crucible.gateway import GatewayOptions, Register, figures
from crucible.operating import find_service
from crucible.runtimes.kubernetes.settings import DoorService
from crucible.serving import Serving

UID = "uid-1"
SERVICE: dict[str, Any] = {
    "clusterIP": "10.96.0.7",
    "selector": {"b": "2", "a": "1"},
    "ports": [{"port": 3128}],
}


class Client:
    """An API server that has one Service, or answers with an error."""

    def __init__(self, answer: dict[str, Any] | CrucibleError) -> None:
        self.answer = answer

    async def get(self, path: str, params: Any = None) -> dict[str, Any]:
        assert path == "/api/v1/namespaces/system/services/egress"
        if isinstance(self.answer, CrucibleError):
            raise self.answer
        return {"spec": self.answer}


def plugin(rate: str | None) -> dict[str, Any]:
    resources = {"network": rate} if rate else {}
    return {
        "apiVersion": "crucible.dev/v1alpha1",
        "kind": "Plugin",
        "metadata": {"name": "p", "namespace": "default", "uid": UID, "resourceVersion": "1"},
        "spec": {
            "type": "python",
            "version": "1.0.0",
            "source": {"inline": {"main.py": "pass"}},
            "entrypoint": ["main.py"],
            "capabilities": {"network": {"connect": ["api.example.com:443"]}},
            "resources": resources,
        },
    }


@pytest.mark.parametrize(("replicas", "share"), [(1, 1 << 20), (3, (1 << 20) // 3)])
async def test_several_proxies_share_what_a_plugin_may_pass(replicas: int, share: int) -> None:
    client: Any = Client(SERVICE)
    register = Register(client, GatewayOptions(Serving(), replicas=replicas))
    told = plugin("1Mi")
    register.doorman.plugin(None, told)
    assert register.gate.granted(UID).rate == share
    assert told["spec"] == {}, "the rest of a Plugin is not kept"
    register.doorman.plugin(told, plugin(None))
    assert len(register.gate.granted(UID).rules) == 1
    register.doorman.plugin(plugin(None), None)
    assert register.gate.granted(UID).rules == ()


async def test_it_is_not_ready_before_it_knows_who_is_there() -> None:
    client: Any = Client(SERVICE)
    register = Register(client, GatewayOptions(Serving()))
    assert register.unready()
    assert not register.ill()
    assert "crucible_egress_open 0" in figures(register)


async def test_no_service_is_no_way_out() -> None:
    client: Any = Client(SERVICE)
    assert await find_service(client, "--egress", "", 3128) is None


async def test_the_operator_learns_address_and_selector_from_the_service() -> None:
    client: Any = Client(SERVICE)
    found = await find_service(client, "--egress", "system/egress", 3128)
    assert found == DoorService("system", "egress", "10.96.0.7", (("a", "1"), ("b", "2")), 3128)


async def test_a_service_that_is_not_there_is_waited_for() -> None:
    client: Any = Client(NotFound("no"))
    with pytest.raises(Unavailable, match="no such Service yet"):
        await find_service(client, "--egress", "system/egress", 3128)


@pytest.mark.parametrize("without", ["clusterIP", "selector", "ports"])
async def test_a_service_that_leads_nowhere_is_refused(without: str) -> None:
    client: Any = Client({key: value for key, value in SERVICE.items() if key != without})
    with pytest.raises(InvalidInput, match="--egress system/egress"):
        await find_service(client, "--egress", "system/egress", 3128)


@pytest.mark.parametrize("words", ["egress", "/egress", "system/"])
async def test_words_that_name_no_service_are_refused(words: str) -> None:
    client: Any = Client(SERVICE)
    with pytest.raises(InvalidInput, match="write NAMESPACE/SERVICE"):
        await find_service(client, "--egress", words, 3128)
