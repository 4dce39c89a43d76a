"""Deletion in all its modes, definitions as they change, and admission."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from probe import CONFIGMAPS, CRDS, MERGE, PLUGINS, Probe, configmap, plugin, probing

from crucible.control.apiserver import ApiServer, ServerSettings
from crucible.errors import Violation

if TYPE_CHECKING:
    from pathlib import Path


def owned(name: str, owner: dict[str, Any], **more: Any) -> dict[str, Any]:
    meta = owner["metadata"]
    kind = {"apiVersion": owner["apiVersion"], "kind": owner["kind"]}
    reference = {**kind, "name": meta["name"], "uid": meta["uid"], **more}
    return {"metadata": {"name": name, "ownerReferences": [reference]}, "data": {}}


async def gone(probe: Probe, path: str) -> None:
    await probe.until(path, lambda reply: reply.code == 404)


async def test_background_deletion_takes_dependents_of_dependents(probe: Probe) -> None:
    first = (await probe.post(PLUGINS, plugin("a"))).body
    second = (await probe.post(CONFIGMAPS, owned("b", first))).body
    await probe.post(CONFIGMAPS, owned("c", second))
    await probe.delete(f"{PLUGINS}/a")
    await gone(probe, f"{CONFIGMAPS}/b")
    await gone(probe, f"{CONFIGMAPS}/c")


async def test_foreground_deletion_ends_with_the_owner(probe: Probe) -> None:
    owner = (await probe.post(PLUGINS, plugin("a"))).body
    child = owned("b", owner, blockOwnerDeletion=True)
    child["metadata"]["finalizers"] = ["x.dev/f"]
    await probe.post(CONFIGMAPS, child)
    held = await probe.delete(f"{PLUGINS}/a", {"propagationPolicy": "Foreground"})
    assert held.body["metadata"]["finalizers"] == ["foregroundDeletion"]
    await probe.until(f"{CONFIGMAPS}/b", lambda reply: "deletionTimestamp" in reply.body["metadata"])
    assert (await probe.get(f"{PLUGINS}/a")).code == 200
    await probe.patch(f"{CONFIGMAPS}/b", {"metadata": {"finalizers": None}})
    await gone(probe, f"{PLUGINS}/a")


async def test_orphaned_dependents_lose_the_reference_and_stay(probe: Probe) -> None:
    owner = (await probe.post(PLUGINS, plugin("a"))).body
    await probe.post(CONFIGMAPS, owned("b", owner))
    await probe.delete(f"{PLUGINS}/a", {"propagationPolicy": "Orphan"})
    await gone(probe, f"{PLUGINS}/a")
    left = await probe.get(f"{CONFIGMAPS}/b")
    assert "ownerReferences" not in left.body["metadata"]


async def test_a_dependent_with_another_owner_stays(probe: Probe) -> None:
    first = (await probe.post(PLUGINS, plugin("a"))).body
    second = (await probe.post(PLUGINS, plugin("b"))).body
    child = owned("c", first)
    child["metadata"]["ownerReferences"] += owned("c", second)["metadata"]["ownerReferences"]
    await probe.post(CONFIGMAPS, child)
    await probe.delete(f"{PLUGINS}/a")
    left = await probe.until(
        f"{CONFIGMAPS}/c", lambda reply: len(reply.body["metadata"]["ownerReferences"]) == 1
    )
    assert left.body["metadata"]["ownerReferences"][0]["name"] == "b"


async def test_an_object_whose_owner_never_was_is_collected(probe: Probe) -> None:
    ghost = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "uid": "never"}}
    await probe.post(CONFIGMAPS, owned("c", ghost))
    await gone(probe, f"{CONFIGMAPS}/c")


async def test_an_unfinished_cascade_goes_on_after_a_restart(tmp_path: Path, crd: dict[str, Any]) -> None:
    settings = ServerSettings(state_dir=tmp_path / "state")
    async with (
        ApiServer(settings, crds=[crd]) as server,
        probing(server.url, server.ca, server.token) as probe,
    ):
        owner = (await probe.post(PLUGINS, plugin("a"))).body
        for task in server._tasks:
            task.cancel()
        await probe.post(CONFIGMAPS, owned("b", owner))
        await probe.delete(f"{PLUGINS}/a")
        assert (await probe.get(f"{CONFIGMAPS}/b")).code == 200
    async with (
        ApiServer(settings, crds=[crd]) as server,
        probing(server.url, server.ca, server.token) as probe,
    ):
        await gone(probe, f"{CONFIGMAPS}/b")


async def test_a_namespace_goes_with_all_it_holds(probe: Probe) -> None:
    await probe.post("/api/v1/namespaces", {"metadata": {"name": "team"}})
    inside = PLUGINS.replace("default", "team")
    await probe.post(inside, plugin("a", {"finalizers": ["x.dev/f"]}))
    ending = await probe.delete("/api/v1/namespaces/team")
    assert ending.body["status"]["phase"] == "Terminating"
    refused = await probe.post(inside, plugin("b"))
    assert (refused.code, refused.body["reason"]) == (403, "Forbidden")
    await probe.until(f"{inside}/a", lambda reply: "deletionTimestamp" in reply.body["metadata"])
    await probe.patch(f"{inside}/a", {"metadata": {"finalizers": None}})
    await gone(probe, "/api/v1/namespaces/team")


async def test_a_definition_goes_with_its_objects_and_comes_back_empty(
    probe: Probe, crd: dict[str, Any]
) -> None:
    await probe.post(PLUGINS, plugin("a"))
    await probe.delete(f"{CRDS}/plugins.probe.dev")
    await gone(probe, f"{CRDS}/plugins.probe.dev")
    assert (await probe.get("/apis/probe.dev/v1")).code == 404
    assert (await probe.post(CRDS, crd)).code == 201
    assert (await probe.get(PLUGINS)).body["items"] == []


async def test_a_changed_definition_is_in_force_at_once(probe: Probe, crd: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(crd["spec"]))
    spec = changed["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["image"]["maxLength"] = 3
    await probe.post(PLUGINS, plugin("old", image="longer"))
    assert (await probe.patch(f"{CRDS}/plugins.probe.dev", {"spec": changed})).code == 200
    assert (await probe.post(PLUGINS, plugin("new", image="longer"))).code == 422
    kept = await probe.patch(f"{PLUGINS}/old", {"spec": {"replicas": 2}})
    assert kept.code == 200, "what an update leaves alone is not judged again"


async def test_a_definition_that_cannot_be_served_is_refused(probe: Probe, crd: dict[str, Any]) -> None:
    broken = json.loads(json.dumps(crd))
    broken["metadata"]["name"] = "others.probe.dev"
    broken["spec"]["names"] = {"plural": "others", "kind": "Other"}
    schema = broken["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["image"]["pattern"] = "("
    refused = await probe.post(CRDS, broken)
    assert refused.code == 422
    assert "must be a valid regular expression" in refused.body["message"]


async def test_admission_names_the_fields(tmp_path: Path, crd: dict[str, Any]) -> None:
    ours = json.loads(json.dumps(crd).replace("probe.dev", "crucible.dev"))
    seen: list[Any] = []

    def admit(body: dict[str, Any]) -> tuple[Violation, ...]:
        seen.append(body["spec"])
        return (Violation("spec.image", "comes from nowhere"),) if body["spec"]["image"] == "nowhere" else ()

    settings = ServerSettings(state_dir=tmp_path / "state")
    path = PLUGINS.replace("probe.dev", "crucible.dev")
    async with (
        ApiServer(settings, crds=[ours], admit=admit) as server,
        probing(server.url, server.ca, server.token) as probe,
    ):
        body = {**plugin("a", image="nowhere"), "apiVersion": "crucible.dev/v1"}
        refused = await probe.post(path, body)
        assert refused.code == 422
        assert refused.body["details"]["causes"] == [
            {
                "reason": "FieldValueInvalid",
                "field": "spec.image",
                "message": "Invalid value: comes from nowhere",
            }
        ]
        await probe.post(path, {**plugin("a"), "apiVersion": "crucible.dev/v1"})
        asked = len(seen)
        await probe.patch(f"{path}/a/status", {"status": {"phase": "Up"}})
        assert len(seen) == asked, "a status is not admitted"
        assert seen[-1]["replicas"] == 1, "defaults are set before admission"
        assert (await probe.patch(f"{path}/a", {"spec": {"image": "nowhere"}}, MERGE)).code == 422


async def test_kinds_nothing_would_run_are_refused_in_words(probe: Probe) -> None:
    for path in (
        "/apis/apps/v1/namespaces/default/deployments",
        "/api/v1/namespaces/default/serviceaccounts",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        "/apis/unknown.example/v1/things",
    ):
        refused = await probe.post(path, {"kind": "X"})
        assert (refused.code, refused.body["reason"]) == (404, "NotFound"), path
        assert "speaks the Kubernetes API for plugins only" in refused.body["message"]
    pod = await probe.post("/api/v1/namespaces/default/pods", configmap("p"))
    assert pod.code == 405


async def test_deletecollection_keeps_to_its_selector(probe: Probe) -> None:
    for name in ("a", "b", "c"):
        await probe.post(PLUGINS, plugin(name, {"labels": {"n": name}}))
    await probe.delete(f"{PLUGINS}?labelSelector=n in (a,b)")
    assert (await probe.get(PLUGINS)).names == ["c"]


async def test_dry_runs_leave_no_trace(probe: Probe) -> None:
    await probe.post(PLUGINS, plugin("a"))
    before = (await probe.get(PLUGINS)).body
    await probe.post(f"{PLUGINS}?dryRun=All", plugin("b"))
    await probe.patch(f"{PLUGINS}/a?dryRun=All", {"spec": {"image": "z"}})
    await probe.delete(f"{PLUGINS}/a?dryRun=All")
    await probe.delete(f"{PLUGINS}?dryRun=All")
    await probe.apply("c", "m", {"spec": {"image": "x"}}, dryRun="All")
    assert (await probe.get(PLUGINS)).body == before
