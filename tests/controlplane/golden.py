"""The requests whose answers a real 1.36 API server gave, each under the name of its golden answer."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import yaml
from probe import APPLY, CONFIGMAPS, CRDS, MERGE, PATCH, PLUGINS, SECRETS, TABLE, Probe, Reply, plugin, seen

if TYPE_CHECKING:
    from collections.abc import Callable

DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
Answers = dict[str, Any]


async def every_answer(probe: Probe, crd: dict[str, Any]) -> Answers:
    """All answers, in the order the real server was asked: later requests build on earlier ones."""
    found: Answers = {}
    parts: tuple[Callable[[Probe], Any], ...] = (
        discovery, creation, validation, strictness, updates, preconditions, patches, scale, selectors, pages,
        forms, transitions, watches, apply_ownership, apply_limits, deletion, dependents, core_kinds,
    )  # fmt: skip
    found.update(await definition(probe, crd))
    for part in parts:
        found.update(await part(probe))
    return found


async def definition(probe: Probe, crd: dict[str, Any]) -> Answers:
    created = await probe.post(CRDS, crd)
    live = await probe.get(f"{CRDS}/plugins.probe.dev")
    state, meta = live.body["status"], live.body["metadata"]
    return {
        "crd-create": created.brief[:2],
        "crd-conditions": sorted([c["type"], c["status"], c["reason"]] for c in state["conditions"]),
        "crd-names-generation": [state["acceptedNames"], state["storedVersions"], meta.get("generation")],
        "unknown-group": (await probe.get("/apis/nope.dev/v1")).brief[:2],
        "unknown-resource": (await probe.get("/apis/probe.dev/v1/namespaces/default/nopes")).brief,
        "unknown-version": (await probe.get("/apis/probe.dev/v9/namespaces/default/plugins")).brief[:2],
    }


async def discovery(probe: Probe) -> Answers:
    legacy = (await probe.get("/apis/probe.dev/v1")).body["resources"]
    fields = ("name", "kind", "namespaced", "verbs", "shortNames", "categories", "singularName")
    for item in legacy:
        item["verbs"] = sorted(item["verbs"])
    groups = await probe.get("/apis", accept=DISCOVERY)
    group = next(g for g in groups.body["items"] if g["metadata"]["name"] == "probe.dev")
    resource = group["versions"][0]["resources"][0]
    again = await probe.get("/apis", accept=DISCOVERY, headers={"If-None-Match": groups.headers["ETag"]})
    index = (await probe.get("/openapi/v3")).body
    document = (await probe.get(index["paths"]["apis/probe.dev/v1"]["serverRelativeURL"])).body
    path = next(path for path in document["paths"] if path.endswith("plugins/{name}"))
    patch = document["paths"][path]["patch"]
    return {
        "legacy-discovery": [[item.get(name) for name in fields] for item in legacy],
        "aggregated-discovery": [
            groups.headers["Content-Type"],
            sorted(resource),
            sorted(item["subresource"] for item in resource["subresources"]),
        ],
        "discovery-etag-304": again.code,
        "openapi-v3-patch-fieldValidation": [
            "fieldValidation" in [item.get("name") for item in patch["parameters"]],
            patch["x-kubernetes-group-version-kind"],
        ],
    }


async def creation(probe: Probe) -> Answers:
    nameless = {**plugin(""), "metadata": {}}
    first = await probe.post(PLUGINS, plugin("c1"))
    meta = first.body["metadata"]
    named = await probe.post(PLUGINS, {**nameless, "metadata": {"generateName": "gg-"}})
    generated = named.body["metadata"]
    found = {
        "create-defaults": [first.code, first.body["spec"], meta["generation"], "uid" in meta, sorted(meta)],
        "create-dup": (await probe.post(PLUGINS, plugin("c1"))).full,
        "create-noname": (await probe.post(PLUGINS, nameless)).full,
        "generateName": [named.code, len(generated["name"]), generated.get("generateName")],
    }
    await probe.delete(f"{PLUGINS}/{generated['name']}")
    return {
        **found,
        "bad-name": (await probe.post(PLUGINS, plugin("Bad_Name"))).full[:2],
        "wrong-ns-body": (await probe.post(PLUGINS, plugin("z", {"namespace": "other"}))).full,
        "missing-ns": (await probe.post(PLUGINS.replace("default", "nons"), plugin("z"))).full,
        "wrong-kind": (await probe.post(PLUGINS, {**plugin("z"), "kind": "Nope"})).brief[:2],
        "wrong-apiversion": (await probe.post(PLUGINS, {**plugin("z"), "apiVersion": "x/v1"})).brief[:2],
        "bad-json": (await probe.post(PLUGINS, "{nope")).brief[:2],
    }


async def validation(probe: Probe) -> Answers:
    async def refused(**spec: Any) -> list[Any]:
        return (await probe.post(PLUGINS, plugin("z", **spec))).full

    kept = await probe.post(PLUGINS, {**plugin("c3"), "status": {"phase": "X"}})
    await probe.delete(f"{PLUGINS}/c3")
    filled = await probe.post(f"{PLUGINS}?dryRun=All", plugin("z", replicas=None))
    return {
        "status-dropped-on-create": kept.body.get("status"),
        "missing-required": (await probe.post(PLUGINS, {**plugin("z"), "spec": {}})).full,
        "enum": await refused(runtime="vm"),
        "minimum": await refused(replicas=-1),
        "type": await refused(replicas="1"),
        "minLength": await refused(image=""),
        "two-errors": (await refused(image="", replicas="1"))[:3],
        "int-or-string": await refused(limits={"cpu": True}),
        "dup-listmap-key": await refused(env=[{"name": "a"}, {"name": "a"}]),
        "null-with-default": filled.body.get("spec"),
        "cel": await refused(replicas=9),
        "cel-transition": (await probe.patch(f"{PLUGINS}/c1", {"spec": {"runtime": "pod"}})).full,
    }


async def strictness(probe: Probe) -> Answers:
    dry, typo = f"{PLUGINS}?dryRun=All", plugin("z", imgae=1)
    twice = json.dumps(plugin("z")).replace('"image": "x"', '"image":"x","image":"y"')
    warned = await probe.post(dry, typo)
    ignored = await probe.post(f"{dry}&fieldValidation=Ignore", typo)
    deep = plugin("z", config={"a": {"b": 1}})
    return {
        "prune-warn": [warned.code, warned.body["spec"], warned.headers.get("Warning")],
        "strict": (await probe.post(f"{dry}&fieldValidation=Strict", typo)).full,
        "ignore": [ignored.code, ignored.headers.get("Warning")],
        "strict-dup-key": (await probe.post(f"{dry}&fieldValidation=Strict", twice)).full,
        "dryrun-not-stored": (await probe.get(f"{PLUGINS}/z")).brief,
        "preserve-unknown": (await probe.post(f"{dry}&fieldValidation=Strict", deep)).code,
    }


async def updates(probe: Probe) -> Answers:
    one = f"{PLUGINS}/c1"
    start = (await probe.get(one)).body["metadata"]["generation"]

    def grown(reply: Reply) -> int:
        return int(reply.body["metadata"]["generation"]) - int(start)

    labelled = await probe.patch(one, {"metadata": {"labels": {"a": "1"}}})
    changed = await probe.patch(one, {"spec": {"replicas": 2}})
    same = await probe.patch(one, {"spec": {"replicas": 2}})
    ignored = await probe.patch(one, {"status": {"phase": "X"}})
    both = {"spec": {"replicas": 5}, "status": {"phase": "Y"}, "metadata": {"labels": {"zz": "1"}}}
    split = await probe.patch(f"{one}/status", both)
    return {
        "gen-label": grown(labelled),
        "gen-spec": grown(changed),
        "noop-rv-same": same.revision == changed.revision,
        "status-ignored-main": ignored.body.get("status"),
        "status-sub-split": [
            split.body["spec"]["replicas"],
            split.body["status"],
            grown(split),
            split.body["metadata"].get("labels"),
        ],
    }


async def preconditions(probe: Probe) -> Answers:
    one = f"{PLUGINS}/c1"
    stale = (await probe.get(one)).body
    put = await probe.put(f"{one}/status", {**stale, "status": {"phase": "Z"}})
    unversioned = {
        **stale,
        "metadata": {k: v for k, v in stale["metadata"].items() if k != "resourceVersion"},
    }
    fresh = (await probe.get(one)).body
    other = {**fresh, "metadata": {**fresh["metadata"], "uid": "00000000-0000-0000-0000-000000000000"}}
    old = {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 3}}
    first = {"resourceVersion": "1"}
    return {
        "status-put": [put.code, put.body.get("status")],
        "put-stale": (await probe.put(one, stale)).full,
        "put-norv": (await probe.put(one, unversioned)).full,
        "put-wrong-uid": (await probe.put(one, other)).brief[:2],
        "patch-rv-stale": (await probe.patch(one, old)).full,
        "put-create-404": (await probe.put(f"{PLUGINS}/zz", plugin("zz", first))).brief,
        "put-name-mismatch": (await probe.put(one, plugin("other", first))).brief[:2],
    }


async def patches(probe: Probe) -> Answers:
    one = f"{PLUGINS}/c1"
    test = [{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}]
    remove = [{"op": "remove", "path": "/spec/nope"}]
    strategic = "application/strategic-merge-patch+json"
    return {
        "jsonpatch-test-fail": (await probe.patch(one, test, PATCH)).full[:2],
        "jsonpatch-missing-path": (await probe.patch(one, remove, PATCH)).full[:2],
        "mergepatch-array": (await probe.patch(one, [1])).full[:3],
        "strategic-cr-415": (await probe.patch(one, {}, strategic)).brief,
        "patch-404": (await probe.patch(f"{PLUGINS}/nope", {})).brief,
        "method-405": (await probe.post(one, {})).brief[:2],
    }


async def scale(probe: Probe) -> Answers:
    got = (await probe.get(f"{PLUGINS}/c1/scale")).body
    patched = await probe.patch(f"{PLUGINS}/c1/scale", {"spec": {"replicas": 4}})
    await probe.post(PLUGINS, plugin("c2", {"labels": {"a": "2"}}, runtime="process"))
    return {
        "scale-get": [got["kind"], got["apiVersion"], got["spec"], got["status"]],
        "scale-patch": [patched.code, patched.body.get("spec")],
    }


async def selectors(probe: Probe) -> Answers:
    async def chosen(query: str) -> Reply:
        return await probe.get(f"{PLUGINS}?{query}")

    return {
        "sel-eq": (await chosen("labelSelector=a=1")).names,
        "sel-in": (await chosen("labelSelector=a in (1,2)")).names,
        "sel-notin-missing": (await chosen("labelSelector=q notin (1)")).names,
        "sel-exists": (await chosen("labelSelector=a")).names,
        "sel-notexists": (await chosen("labelSelector=!a")).names,
        "sel-bad": (await chosen("labelSelector=a=((")).brief[:2],
        "fsel-name": (await chosen("fieldSelector=metadata.name=c1")).names,
        "fsel-selectable": (await chosen("fieldSelector=spec.runtime!=docker")).names,
        "fsel-bad": (await chosen("fieldSelector=spec.image=x")).brief,
    }


async def pages(probe: Probe) -> Answers:
    first = await probe.get(f"{PLUGINS}?limit=1")
    meta = first.body["metadata"]
    second = await probe.get(f"{PLUGINS}?limit=1&continue={meta['continue']}")
    after = second.body["metadata"]
    items = (await probe.get(PLUGINS)).body["items"]
    return {
        "limit": [
            first.names,
            bool(meta.get("continue")),
            meta.get("remainingItemCount"),
            first.body["kind"],
        ],
        "continue": [
            second.names,
            after.get("continue"),
            after["resourceVersion"] == meta["resourceVersion"],
        ],
        "bad-continue": (await probe.get(f"{PLUGINS}?limit=1&continue=zzz")).brief[:2],
        "list-item-has-kind": [items[0].get("kind"), (await probe.get(CONFIGMAPS)).body["kind"]],
    }


async def forms(probe: Probe) -> Answers:
    table = (await probe.get(PLUGINS, accept=TABLE)).body
    bare = (await probe.get(f"{PLUGINS}?includeObject=None", accept=TABLE)).body
    partial_form = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
    partial = (await probe.get(f"{PLUGINS}/c1", accept=partial_form)).body
    protobuf = await probe.get(PLUGINS, accept="application/vnd.kubernetes.protobuf")
    columns = [[c["name"], c["type"], c["priority"]] for c in table["columnDefinitions"]]
    cells = [row["cells"][:5] for row in table["rows"]]
    return {
        "table": [table["kind"], columns, cells, table["rows"][0]["object"]["kind"]],
        "table-noobj": bare["rows"][0]["object"],
        "partial": [partial["kind"], sorted(partial)],
        "406": (await probe.get(PLUGINS, accept="application/xml")).brief[:2],
        "cr-protobuf-only": protobuf.code,
    }


async def transitions(probe: Probe) -> Answers:
    since = (await probe.get(PLUGINS)).revision
    async with probe.watch(f"{PLUGINS}?watch=1&resourceVersion={since}&labelSelector=a=1") as watch:
        await probe.patch(f"{PLUGINS}/c2", {"metadata": {"labels": {"a": "1"}}})
        await probe.patch(f"{PLUGINS}/c2", {"metadata": {"labels": {"a": "3"}}})
        await probe.post(PLUGINS, plugin("c4", {"labels": {"a": "1"}}))
        await probe.delete(f"{PLUGINS}/c4")
        narrowed = await watch.take(4)
    async with probe.watch(f"{PLUGINS}?watch=1&resourceVersion={since}") as watch:
        replayed = await watch.take(4)
    async with probe.watch(f"{PLUGINS}?watch=1&resourceVersion={since}", TABLE) as watch:
        table = await watch.next()
    revisions = [int(event["object"]["metadata"]["resourceVersion"]) for event in replayed]
    shown = table["object"]
    return {
        "watch-selector-transitions": [
            [*pair, event["object"]["metadata"]["labels"]["a"]]
            for pair, event in zip(seen(narrowed), narrowed, strict=True)
        ],
        "watch-replay": [list(pair) for pair in seen(replayed)],
        "watch-rv-increasing": revisions == sorted(set(revisions)),
        "watch-table": [
            [
                table["type"],
                shown["kind"],
                bool(shown.get("columnDefinitions")),
                shown["rows"][0]["object"]["kind"],
            ]
        ],
    }


async def watches(probe: Probe) -> Answers:
    async def events(query: str, count: int) -> list[dict[str, Any]]:
        async with probe.watch(f"{PLUGINS}?watch=1{query}") as watch:
            return await watch.take(count)

    initial = "&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    listed = await events(initial, 3)
    old = (await events("&resourceVersion=1", 1))[0]
    clock = asyncio.get_running_loop()
    began = clock.time()
    async with probe.watch(f"{PLUGINS}?watch=1&timeoutSeconds=1") as watch:
        await watch.rest()
    return {
        "watch-norv": [list(pair) for pair in seen(await events("", 2))],
        "watch-rv0": [list(pair) for pair in seen(await events("&resourceVersion=0", 2))],
        "watch-list": [
            [e["type"], e["object"]["metadata"].get("name"), e["object"]["metadata"].get("annotations")]
            for e in listed
        ],
        "watch-list-needs-match": _code_reason(await probe.get(f"{PLUGINS}?watch=1&sendInitialEvents=true")),
        "watch-bad-rv": _code_reason(await probe.get(f"{PLUGINS}?watch=1&resourceVersion=abc")),
        "watch-rv1-too-old": [200, [[old["type"], old["object"].get("code"), old["object"].get("reason")]]],
        "watch-timeoutSeconds": int(clock.time() - began),
        "watch-single-path": await _watch_code(probe, f"{PLUGINS}/c1?watch=1"),
    }


def _code_reason(reply: Reply) -> list[Any]:
    return [reply.code, reply.body.get("reason")]


async def _watch_code(probe: Probe, path: str) -> int:
    async with probe.watch(path) as watch:
        return watch.code


def owners(reply: Reply) -> list[list[Any]]:
    entries = reply.body["metadata"].get("managedFields", [])
    return sorted([e["manager"], e["operation"], e.get("subresource"), e["fieldsV1"]] for e in entries)


async def apply_ownership(probe: Probe) -> Answers:
    spec: dict[str, Any] = {"image": "x", "env": [{"name": "A", "value": "1"}], "limits": {"cpu": 1}}
    created = await probe.apply("s1", "m1", {"spec": spec})
    second = {"spec": {"image": "x", "env": [{"name": "B", "value": "2"}]}}
    joined = await probe.apply("s1", "m2", second)
    conflict = await probe.apply("s1", "m2", {"spec": {"image": "y"}})
    removed = await probe.apply("s1", "m2", {"spec": {"image": "x"}})
    forced = await probe.apply("s1", "m2", {"spec": {"image": "y"}}, force="true")
    again = await probe.apply("s1", "m2", {"spec": {"image": "y"}}, force="true")
    updated = await probe.patch(f"{PLUGINS}/s1?fieldManager=u", {"spec": {"replicas": 3}})
    return {
        "ssa-create": [created.code, owners(created)],
        "ssa-listmap-merge": [joined.code, joined.body["spec"]["env"], owners(joined)],
        "ssa-conflict": conflict.full,
        "ssa-removes-own": [removed.code, removed.body["spec"]["env"], owners(removed)],
        "ssa-force": [forced.code, forced.body["spec"]["image"], owners(forced)],
        "ssa-noop-rv": again.revision == forced.revision,
        "update-ownership": owners(updated),
    }


async def apply_limits(probe: Probe) -> Answers:
    one = f"{PLUGINS}/s1"
    unnamed = await probe.patch(one, plugin("s1"), APPLY)
    as_yaml = await probe.patch(f"{one}?fieldManager=y&force=true", yaml.safe_dump(plugin("s1")), APPLY)
    reset = await probe.patch(f"{one}?fieldManager=u", {"metadata": {"managedFields": [{}]}}, MERGE)
    state = {"phase": "Q", "conditions": [{"type": "Ready", "status": "True"}]}
    body = {"apiVersion": "probe.dev/v1", "kind": "Plugin", "metadata": {"name": "s1"}, "status": state}
    status = await probe.patch(f"{one}/status?fieldManager=st&force=true", body, APPLY)
    unknown = await probe.apply("s1", "m9", {"spec": {"imgae": "y"}})
    return {
        "ssa-no-manager": unnamed.brief[:2],
        "ssa-yaml-body": as_yaml.code,
        "managedFields-reset": owners(reset),
        "ssa-status": [
            status.code,
            status.body.get("status"),
            [entry for entry in owners(status) if entry[0] == "st"],
        ],
        "ssa-unknown-field": unknown.brief,
    }


async def deletion(probe: Probe) -> Answers:
    two = f"{PLUGINS}/c2"
    held = await probe.patch(two, {"metadata": {"finalizers": ["x.dev/f"]}})
    before = held.body["metadata"]["generation"]
    first = await probe.delete(two)
    meta = first.body["metadata"]
    again = await probe.delete(two)
    added = await probe.patch(two, {"metadata": {"finalizers": ["x.dev/f", "y.dev/g"]}})
    released = await probe.patch(two, {"metadata": {"finalizers": None}})
    refused = await probe.delete(f"{PLUGINS}/s1", {"preconditions": {"uid": "nope"}})
    gone = await probe.delete(f"{PLUGINS}/s1")
    return {
        "delete-finalizer": [
            first.code,
            first.body["kind"],
            "deletionTimestamp" in meta,
            meta.get("deletionGracePeriodSeconds"),
            meta.get("generation") - before,
        ],
        "delete-again": [again.code, again.revision == first.revision],
        "add-finalizer-deleting": added.full,
        "finalizer-removed": [released.code, (await probe.get(two)).code],
        "delete-precondition": refused.brief[:2],
        "delete-status": [
            gone.code,
            gone.body["kind"],
            gone.body.get("status"),
            sorted(gone.body["details"]),
        ],
        "delete-404": (await probe.delete(f"{PLUGINS}/s1")).full,
    }


async def dependents(probe: Probe) -> Answers:
    owner = (await probe.post(CONFIGMAPS, {"metadata": {"name": "own"}})).body["metadata"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "own", "uid": owner["uid"]}
    await probe.post(CONFIGMAPS, {"metadata": {"name": "dep", "ownerReferences": [reference]}})
    await probe.delete(f"{CONFIGMAPS}/own")
    gone = await probe.until(f"{CONFIGMAPS}/dep", lambda reply: reply.code == 404)
    return {"gc-background": gone.code}


async def core_kinds(probe: Probe) -> Answers:
    dry = "?dryRun=All"
    meta = {"name": "q"}
    plain = await probe.post(SECRETS + dry, {"metadata": meta, "stringData": {"a": "b"}})
    unknown = await probe.post(
        f"{CONFIGMAPS}?fieldValidation=Strict&dryRun=All", {"metadata": meta, "nope": 1}
    )
    found = {
        "cm-unknown-strict": unknown.brief[:2],
        "cm-bad-type": (await probe.post(CONFIGMAPS + dry, {"metadata": meta, "data": {"a": 1}})).brief[:2],
        "secret-bad-b64": (await probe.post(SECRETS + dry, {"metadata": meta, "data": {"a": "!!"}})).brief[
            :2
        ],
        "secret-stringData": [plain.body.get(key) for key in ("data", "stringData", "type")],
        "nsdelete-default": (await probe.delete("/api/v1/namespaces/default?dryRun=All")).brief[:2],
        "deletecollection": (await probe.delete(PLUGINS)).body["kind"],
    }
    large = await probe.post(PLUGINS, plugin("z", config={"a": "x" * 4_000_000}))
    return {**found, "too-big": large.code, "options-ok": (await probe.get("/readyz")).code}
