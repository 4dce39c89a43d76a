"""The rights that the chart gives the operator are all it needs; what it is denied, it does without."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from crucible.control.apiserver.routes import read_path

if TYPE_CHECKING:
    from faults import Answer
    from ground import LocalGround

RULES = Path(__file__).parents[2] / "charts/crucible/files/rules.yaml"
LEASES = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "get", "update"]}
VERBS = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
# kopf looks at the first two where it may, the operator at nodes: where they may not, they do without.
DONE_WITHOUT = {"customresourcedefinitions", "namespaces", "nodes"}


class Rights:
    """Holds the operator to what the chart gives it.

    Attributes:
        denied: what it asked for in vain, as ``verb resource``.
        used: what it asked for and got.
    """

    def __init__(self) -> None:
        self.rules = [*yaml.safe_load(RULES.read_text()), LEASES]
        self.denied: set[str] = set()
        self.used: set[str] = set()

    def answer(self, method: str, path: str) -> Answer | None:
        path, _, watch = path.partition("?")
        found = read_path(path)
        if found is None or not found.plural:
            return None  # discovery and versions are for everyone
        resource = f"{found.plural}/{found.subresource}" if found.subresource else found.plural
        verb = VERBS.get(method) or ("watch" if watch else "get" if found.name else "list")
        asked = f"{verb} {resource}"
        if any(
            found.group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]
            for rule in self.rules
        ):
            self.used.add(asked)
            return None
        self.denied.add(asked)
        return 403, f'User "operator" cannot {verb} resource "{resource}" in API group "{found.group}"'


async def test_the_charts_rights_suffice_for_all_that_a_plugin_goes_through(local: LocalGround) -> None:
    rights = Rights()
    local.faults.answer = rights.answer
    local.start()
    await local.apply(
        "p", replicas=2, capabilities={"network": {"listen": [80]}}, update={"strategy": "recreate"}
    )
    await local.until_ready("p", 2)
    await local.client.delete(local.path("networkpolicies", "crucible-p"))
    await local.client.patch(local.path("services", "p"), {"spec": {"type": "LoadBalancer"}})
    await local.client.delete(local.path("pods", "p-0-1"))
    await local.change("p", config={"value": 2}, replicas=1)
    await local.until_ready("p")

    async def put_back() -> bool:
        service = await local.client.get(local.path("services", "p"))
        return bool(service["spec"]["type"] == "ClusterIP")

    await local.until(put_back)
    await local.delete("p")

    async def gone() -> bool:
        return not (await local.client.get(local.plugins))["items"]

    await local.until(gone)
    assert {each for each in rights.denied if each.partition(" ")[2] not in DONE_WITHOUT} == set()
    assert {"create pods", "delete pods", "watch pods", "patch services", "create events"} <= rights.used
