"""kubectl, as a real binary: what people type."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import yaml
from probe import PLUGINS, Probe, plugin, until

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Tool


def manifest(folder: Path, *objects: dict[str, object]) -> str:
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump_all(objects))
    return str(path)


async def test_apply_both_ways_then_nothing_changes(kubectl: Tool, tmp_path: Path) -> None:
    path = manifest(tmp_path, plugin("a", env=[{"name": "A", "value": "1"}]))
    assert "created" in await kubectl.ok("apply", "-f", path)
    assert "unchanged" in await kubectl.ok("apply", "-f", path)
    path = manifest(tmp_path, plugin("a", env=[{"name": "B", "value": "2"}]))
    assert (await kubectl.run("diff", "-f", path)).code == 1
    assert "configured" in await kubectl.ok("apply", "-f", path)
    assert await kubectl.ok("diff", "-f", path) == ""
    await kubectl.ok("apply", "--server-side", "--force-conflicts", "-f", path)
    assert await kubectl.ok("diff", "--server-side", "--force-conflicts", "-f", path) == ""
    assert json.loads(await kubectl.ok("get", "plg", "a", "-o", "json"))["spec"]["env"] == [
        {"name": "B", "value": "2"}
    ]


async def test_get_in_every_form(kubectl: Tool, probe: Probe) -> None:
    for at, name in enumerate(("a", "b", "c")):
        await probe.post(PLUGINS, plugin(name, {"labels": {"n": str(at)}}, replicas=at))
    header, *rows = (await kubectl.ok("get", "plugins")).splitlines()
    assert header.split() == ["NAME", "IMAGE", "REPLICAS", "PHASE", "AGE"]
    assert [row.split()[0] for row in rows] == ["a", "b", "c"]
    assert "RUNTIME" in await kubectl.ok("get", "plg", "-o", "wide")
    assert await kubectl.ok("get", "plg", "-o", "name", "--chunk-size=2") == "".join(
        f"plugin.probe.dev/{name}\n" for name in "abc"
    )
    assert await kubectl.ok("get", "plg", "-o", "jsonpath={.items[*].spec.replicas}") == "0 1 2"
    assert len(yaml.safe_load(await kubectl.ok("get", "plg", "-o", "yaml"))["items"]) == 3
    chosen = await kubectl.ok("get", "plg", "-o", "custom-columns=N:.metadata.name", "-l", "n in (0,2)")
    assert chosen.split() == ["N", "a", "c"]
    ordered = await kubectl.ok("get", "plg", "--sort-by=.spec.replicas", "--no-headers")
    assert [row.split()[0] for row in ordered.splitlines()] == ["a", "b", "c"]
    assert (await kubectl.ok("get", "plg", "--field-selector", "metadata.name=b", "-o", "name")).split() == [
        "plugin.probe.dev/b"
    ]
    assert "plugin.probe.dev/a" in await kubectl.ok("get", "all", "-A")
    assert "field label not supported" in (await kubectl.run("get", "plg", "--field-selector", "a=b")).err


async def test_get_watch_shows_changes_as_they_come(kubectl: Tool, probe: Probe) -> None:
    await probe.post(PLUGINS, plugin("a"))
    process = await kubectl.start("get", "plg", "-w", "--no-headers")
    try:
        assert process.stdout is not None
        assert (await process.stdout.readline()).split()[:3] == [b"a", b"x", b"1"]
        await probe.patch(f"{PLUGINS}/a", {"spec": {"replicas": 3}})
        assert (await process.stdout.readline()).split()[:3] == [b"a", b"x", b"3"]
    finally:
        process.kill()
        await process.communicate()


async def test_change_in_place(kubectl: Tool, probe: Probe) -> None:
    await probe.post(PLUGINS, plugin("a"))
    await kubectl.ok("label", "plg", "a", "tier=one")
    await kubectl.ok("annotate", "plg", "a", "note=hi")
    await kubectl.ok("scale", "plg", "a", "--replicas=4")
    await kubectl.ok("patch", "plg", "a", "--type=merge", "-p", '{"spec":{"image":"y1"}}')
    await kubectl.ok(
        "patch", "plg", "a", "--type=json", "-p", '[{"op":"add","path":"/spec/config","value":{}}]'
    )
    assert (await kubectl.run("patch", "plg", "a", "-p", '{"spec":{"image":"z"}}')).code != 0
    await kubectl.ok(
        "patch", "plg", "a", "--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Up"}}'
    )
    found = json.loads(await kubectl.ok("get", "plg", "a", "-o", "json"))
    assert (found["spec"]["replicas"], found["spec"]["image"], found["status"]) == (4, "y1", {"phase": "Up"})
    assert found["metadata"]["labels"] == {"tier": "one"}
    await kubectl.ok("replace", "-f", "-", stdin=json.dumps({**found, "spec": {"image": "w1"}}))
    assert (
        "Edit cancelled"
        in (await kubectl.run("edit", "plg", "a")).err + (await kubectl.run("edit", "plg", "a")).out
    )


async def test_delete_waits_for_finalizers(kubectl: Tool, probe: Probe) -> None:
    await probe.post(PLUGINS, plugin("held", {"finalizers": ["x.dev/f"]}))
    process = await kubectl.start("delete", "plg", "held", "--wait")
    await probe.until(f"{PLUGINS}/held", lambda reply: "deletionTimestamp" in reply.body["metadata"])
    assert process.returncode is None
    await probe.patch(f"{PLUGINS}/held", {"metadata": {"finalizers": None}})
    out, _ = await process.communicate()
    assert b'"held" deleted' in out
    for mode in ("background", "foreground", "orphan"):
        await probe.post(PLUGINS, plugin(mode))
        await kubectl.ok("delete", "plg", mode, f"--cascade={mode}")
    await probe.post(PLUGINS, plugin("last"))
    await kubectl.ok("delete", "plg", "--all")
    assert (await probe.get(PLUGINS)).body["items"] == []


async def test_wait_for_conditions_fields_and_deletion(kubectl: Tool, probe: Probe) -> None:
    await probe.post(PLUGINS, plugin("a"))
    waiting = await kubectl.start("wait", "plg/a", "--for=condition=Ready", "--timeout=60s")
    ready = {"status": {"phase": "Up", "conditions": [{"type": "Ready", "status": "True"}]}}
    await probe.patch(f"{PLUGINS}/a/status", ready)
    assert b"condition met" in (await waiting.communicate())[0]
    await kubectl.ok("wait", "plg/a", "--for=jsonpath={.status.phase}=Up", "--timeout=60s")
    waiting = await kubectl.start("wait", "plg/a", "--for=delete", "--timeout=60s")
    await probe.delete(f"{PLUGINS}/a")
    await waiting.communicate()
    assert waiting.returncode == 0


async def test_tells_about_itself(kubectl: Tool) -> None:
    assert "plugins" in await kubectl.ok("api-resources")
    assert "probe.dev/v1" in await kubectl.ok("api-versions")
    assert "OCI image or path." in await kubectl.ok("explain", "plugins.spec.image")
    assert "conditions" in await kubectl.ok("explain", "plugins", "--recursive")
    assert await kubectl.ok("auth", "can-i", "create", "plugins") == "yes\n"
    assert (await kubectl.run("auth", "can-i", "create", "pods")).out.startswith("no")
    assert "crucible-admin" in await kubectl.ok("auth", "whoami")
    assert "*.*" in await kubectl.ok("auth", "can-i", "--list")
    assert "is running at" in await kubectl.ok("cluster-info")
    assert "v1.36" in await kubectl.ok("version")


async def test_core_kinds_come_and_go(kubectl: Tool, probe: Probe) -> None:
    await kubectl.ok("create", "namespace", "team")
    await kubectl.ok("create", "secret", "generic", "s", "--from-literal=a=b", "-n", "team")
    await kubectl.ok("create", "configmap", "c", "--from-literal=a=b", "-n", "team")
    assert "Opaque" in await kubectl.ok("get", "secrets", "-n", "team")
    assert "Active" in await kubectl.ok("get", "ns", "team")
    assert "a:" in await kubectl.ok("describe", "secret", "s", "-n", "team")
    await kubectl.ok("delete", "namespace", "team")
    assert (await probe.get("/api/v1/namespaces/team/secrets/s")).code == 404
    assert (await kubectl.run("delete", "namespace", "default")).code != 0
    refused = await kubectl.run("create", "deployment", "d", "--image=i")
    assert "this server speaks the Kubernetes API for plugins only" in refused.err


async def test_events_and_describe(kubectl: Tool, probe: Probe) -> None:
    made = await probe.post(PLUGINS, plugin("a"))
    meta = made.body["metadata"]
    about = {
        "kind": "Plugin",
        "apiVersion": "probe.dev/v1",
        "name": "a",
        "namespace": "default",
        "uid": meta["uid"],
    }
    event = {
        "metadata": {"generateName": "a-", "namespace": "default"},
        "involvedObject": about,
        "reason": "Started",
        "message": "it runs",
        "type": "Normal",
        "lastTimestamp": meta["creationTimestamp"],
    }
    assert (await probe.post("/api/v1/namespaces/default/events", event)).code == 201
    assert "it runs" in await kubectl.ok("describe", "plg", "a")
    assert "it runs" in await kubectl.ok("events", "--for", "plugin.probe.dev/a")
    assert "plugin/a" in await kubectl.ok("get", "events")


async def test_apply_prunes_and_kustomizes(kubectl: Tool, tmp_path: Path, probe: Probe) -> None:
    folder = tmp_path / "k"
    folder.mkdir()
    (folder / "a.yaml").write_text(yaml.safe_dump(plugin("a")))
    (folder / "b.yaml").write_text(yaml.safe_dump(plugin("b")))
    kustomization = {"resources": ["a.yaml", "b.yaml"], "labels": [{"pairs": {"app": "k"}}]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    await kubectl.ok("apply", "-k", str(folder))
    assert (await probe.get(f"{PLUGINS}?labelSelector=app=k")).names == ["a", "b"]
    allowed = "--prune-allowlist=probe.dev/v1/Plugin"
    path = manifest(tmp_path, plugin("a", {"labels": {"app": "k"}}))
    assert "plugin.probe.dev/b pruned" in await kubectl.ok(
        "apply", "-f", path, "--prune", "-l", "app=k", allowed
    )

    async def only_a() -> bool:
        return (await probe.get(f"{PLUGINS}?labelSelector=app=k")).names == ["a"]

    await until(only_a)


async def test_server_side_conflict_is_shown(kubectl: Tool, tmp_path: Path, probe: Probe) -> None:
    await probe.apply("a", "other", {"spec": {"image": "theirs"}})
    path = manifest(tmp_path, plugin("a"))
    refused = await kubectl.run("apply", "--server-side", "-f", path)
    assert 'conflict with "other": .spec.image' in refused.err
    await kubectl.ok("apply", "--server-side", "--force-conflicts", "-f", path)
