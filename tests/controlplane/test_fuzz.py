"""Any request is answered with a Status, and the server lives."""

from __future__ import annotations

import copy
import json
import os
import random
from typing import Any

from probe import APPLY, CONFIGMAPS, CRDS, MERGE, PATCH, PLUGINS, SECRETS, Probe, plugin
from yarl import URL

ROUNDS = 4000 if os.environ.get("CRUCIBLE_LONG") else 400
PATHS = (
    PLUGINS,
    f"{PLUGINS}/a",
    f"{PLUGINS}/a/status",
    f"{PLUGINS}/a/scale",
    CONFIGMAPS,
    SECRETS,
    CRDS,
    "/api/v1/namespaces",
    "/api/v1/namespaces/default/events",
    "/apis/coordination.k8s.io/v1/namespaces/default/leases",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "/api/v1/namespaces/default/pods/x/log",
    "/api/v1/namespaces/default/pods/x/exec",
    "/apis",
    "/openapi/v3",
    "/apis/probe.dev/v1",
    "/api/v1//x",
)
MEDIA = (
    "application/json",
    MERGE,
    PATCH,
    APPLY,
    "application/strategic-merge-patch+json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "text/html",
    "",
)
QUERIES = (
    "labelSelector",
    "fieldSelector",
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
    "dryRun",
    "fieldManager",
    "force",
    "fieldValidation",
    "propagationPolicy",
    "includeObject",
    "timeoutSeconds",
    "command",
)
METHODS = (
    ("GET", "POST", "PUT", "PATCH", "PATCH", "PATCH", "DELETE", "OPTIONS"),
    ("GET", "GET", "POST", "POST", "POST", "DELETE"),
)
WORDS = (
    "",
    "0",
    "-1",
    "1",
    "99999999999999999999",
    "All",
    "a=b",
    "a in (b",
    "\x00",
    "é",
    "true",
    "Strict",
    "None",
    "metadata.name=a",
)
PIECES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    "",
    "x",
    "\ud800",
    "a" * 300,
    [],
    {},
    [[]],
    {"a": None},
    [None],
    {"": {}},
)
KEYS = (
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    "status",
    "data",
    "name",
    "labels",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "annotations",
    "generateName",
    "resourceVersion",
    "uid",
    "namespace",
    "op",
    "path",
    "value",
    "image",
    "env",
    "limits",
    "replicas",
    "config",
    "versions",
    "names",
    "schema",
    "group",
)


def junk(dice: random.Random, depth: int = 0) -> Any:
    roll = dice.random()
    if depth > 3 or roll < 0.4:
        return copy.deepcopy(dice.choice(PIECES))
    if roll < 0.85:
        return {dice.choice(KEYS): junk(dice, depth + 1) for _ in range(dice.randint(0, 4))}
    return [junk(dice, depth + 1) for _ in range(dice.randint(0, 3))]


def spoiled(dice: random.Random) -> Any:
    """A good plugin with one or two places replaced by junk."""
    body: Any = plugin("a", {"labels": {"l": "1"}, "finalizers": []}, env=[{"name": "A"}], limits={"cpu": 1})
    for _ in range(dice.randint(1, 2)):
        node = body
        while True:
            places = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not places:
                break
            place = dice.choice(places)
            if dice.random() < 0.4 or not isinstance(node[place], dict | list):
                node[place] = junk(dice)
                break
            node = node[place]
    return body


async def test_whatever_is_asked_is_answered(probe: Probe) -> None:
    dice = random.Random(int(os.environ.get("CRUCIBLE_SEED", "11")))
    await probe.post(PLUGINS, plugin("a"))
    for at in range(ROUNDS):
        if at % 5 == 0:
            await probe.post(PLUGINS, plugin("a"))
        where = dice.choice(PATHS) if dice.random() < 0.5 else dice.choice(PATHS[:4])
        method = dice.choice(METHODS[where == PLUGINS])
        if method == "DELETE" and where == CRDS:
            continue
        query = {dice.choice(QUERIES): dice.choice(WORDS) for _ in range(dice.randint(0, 3))}
        path = str(URL(where).with_query(query))
        body: Any = None
        if method != "GET":
            kind = dice.random()
            body = spoiled(dice) if kind < 0.5 else junk(dice) if kind < 0.9 else dice.randbytes(40)
            body = body if isinstance(body, bytes) else json.dumps(body)
        reply = await probe.ask(
            method, path, body, media=dice.choice(MEDIA if method != "PATCH" else MEDIA[1:4])
        )
        assert reply.body.get("reason") != "InternalError", (
            method, path, body, reply.body,
        )  # fmt: skip
        assert "Traceback" not in str(reply.body)
    assert (await probe.get("/readyz")).code == 200
