"""Whatever somebody changes of what a plugin is run as, it becomes again what it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from crucible.control.client import JSON_PATCH

if TYPE_CHECKING:
    from ground import Ground


async def test_a_pod_that_somebody_deletes_is_replaced(ground: Ground) -> None:
    await ground.apply("p")
    await ground.until_ready("p")
    await ground.client.delete(ground.path("pods", "p-0-1"))

    async def replaced() -> bool:
        return [pod["metadata"]["name"] for pod in await ground.running("p")] == ["p-0-2"]

    await ground.until(replaced)
    await ground.until_ready("p")


async def test_a_pod_that_somebody_deletes_by_force_is_replaced(ground: Ground) -> None:
    await ground.apply("p")
    await ground.until_ready("p")
    (pod,) = await ground.pods("p")
    await ground.client.end(ground.path("pods", "p-0-1"), pod["metadata"]["uid"], 0)

    async def replaced() -> bool:
        return [each["metadata"]["name"] for each in await ground.running("p")] == ["p-0-2"]

    await ground.until(replaced)
    plugin = await ground.until_ready("p")
    assert "deleted by someone else" in plugin["status"]["instances"][0]["lastExit"]["message"]


@pytest.mark.parametrize(
    "label", ["app.kubernetes.io/managed-by", "crucible.dev/plugin-uid", "crucible.dev/revision"]
)
async def test_a_label_that_somebody_takes_from_a_pod_is_put_back(ground: Ground, label: str) -> None:
    await ground.apply("p")
    await ground.until_ready("p")
    before = await ground.client.get(ground.path("pods", "p-0-1"))
    await ground.client.patch(ground.path("pods", "p-0-1"), {"metadata": {"labels": {label: None}}})

    async def back() -> bool:
        pod = await ground.client.get(ground.path("pods", "p-0-1"))
        return bool(pod["metadata"]["labels"] == before["metadata"]["labels"])

    await ground.until(back)
    pods = (await ground.client.get(ground.path("pods")))["items"]
    assert [pod["metadata"]["uid"] for pod in pods] == [before["metadata"]["uid"]]


OPENINGS: dict[str, Any] = {
    "everything may leave": {"op": "add", "path": "/spec/egress", "value": [{}]},
    "everything may come in": {"op": "add", "path": "/spec/ingress", "value": [{}]},
    "it holds nobody": {"op": "add", "path": "/spec/podSelector/matchLabels/x", "value": "y"},
    "it forgets one direction": {"op": "replace", "path": "/spec/policyTypes", "value": ["Ingress"]},
}


@pytest.mark.parametrize("name", sorted(OPENINGS))
async def test_a_network_policy_that_somebody_opens_is_closed(ground: Ground, name: str) -> None:
    await ground.apply("p")
    await ground.until_ready("p")
    path = ground.path("networkpolicies", "crucible-p")
    before = (await ground.client.get(path))["spec"]
    changed = await ground.client.patch(path, [OPENINGS[name]], JSON_PATCH)
    assert changed["spec"] != before

    async def closed() -> bool:
        spec = (await ground.client.get(path))["spec"]
        return _bare(spec) == _bare(before)

    await ground.until(closed)


@pytest.mark.parametrize(
    ("plural", "name"),
    [("networkpolicies", "crucible-p"), ("services", "p"), ("poddisruptionbudgets", "crucible-p")],
)
async def test_what_stands_around_a_plugin_is_made_again_when_somebody_deletes_it(
    ground: Ground, plural: str, name: str
) -> None:
    await ground.apply("p", replicas=2, capabilities={"network": {"listen": [8080]}})
    await ground.until_ready("p", 2)
    before = await ground.client.get(ground.path(plural, name))
    await ground.client.delete(ground.path(plural, name))

    async def again() -> bool:
        found = await ground.client.get(ground.path(plural, name))
        return bool(found["metadata"]["uid"] != before["metadata"]["uid"])

    await ground.until(again)


async def test_what_changed_while_no_operator_ran_is_put_back_by_the_next(ground: Ground) -> None:
    if not ground.operates:
        pytest.skip("the cluster's own operator is not ours to end")
    await ground.apply("p")
    await ground.until_ready("p")
    await ground.end()
    await ground.client.delete(ground.path("networkpolicies", "crucible-p"))
    ground.start()

    async def again() -> bool:
        return bool(await ground.client.get(ground.path("networkpolicies", "crucible-p")))

    await ground.until(again)
    assert [pod["metadata"]["name"] for pod in await ground.running("p")] == ["p-0-1"]


def _bare(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if value not in ([], {})}
