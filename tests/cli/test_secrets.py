"""A plugin and its Secret, from one that is missing to one that changed, on a real control plane."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from typing import TYPE_CHECKING, Any

from onlooker import contents, files

from crucible.control.client import Client
from crucible.control.kubeconfig import load_endpoint

if TYPE_CHECKING:
    from crucible.settings import Places

SECRETS = "/api/v1/namespaces/default/secrets"
PROGRAM = """\
import hashlib, os, signal
for text in (open("/secrets/vault/token").read(), os.environ["TOKEN"]):
    print(hashlib.sha256(text.encode()).hexdigest(), flush=True)
signal.pause()
"""


def call(places: Places, verb: str, path: str, *arguments: Any) -> Any:
    async def ask() -> Any:
        async with Client(load_endpoint(places.kubeconfig)) as client:
            return await getattr(client, verb)(path, *arguments)

    return asyncio.run(ask())


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_plugin_waits_for_its_secret_starts_with_it_and_follows_its_changes(
    crucible: Any, manifest: Any, eventually: Any, places: Places
) -> None:
    first, second = (f"canary-{secrets.token_hex(8)}" for _ in range(2))
    env = [{"name": "TOKEN", "secret": {"name": "vault", "key": "token"}}]
    file = manifest(PROGRAM, "keeper", capabilities={"secrets": ["vault"]}, env=env)
    assert crucible("apply", "-f", file).code == 0

    def status() -> dict[str, Any]:
        return dict(json.loads(crucible("get", "keeper", "-o", "json").out).get("status") or {})

    def reason() -> str:
        return next(
            (each["reason"] for each in status().get("conditions", ()) if each["type"] == "Ready"), ""
        )

    def said() -> list[str]:
        return list(crucible("logs", "keeper").out.split())

    eventually(lambda: reason() == "SecretMissing", status)
    assert "Secret vault is not in this namespace" in crucible("describe", "keeper").out

    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vault"}}
    call(places, "create", SECRETS, {**secret, "data": {"other": encoded(first)}})
    eventually(lambda: "has no key token" in crucible("describe", "keeper").out, status)
    call(places, "patch", f"{SECRETS}/vault", {"data": {"token": encoded(first)}})
    eventually(lambda: said()[-2:] == [digest(first)] * 2, said)
    eventually(lambda: reason() == "Running", status)
    before = status()["revision"]

    call(places, "patch", f"{SECRETS}/vault", {"metadata": {"labels": {"team": "a"}}})
    call(places, "patch", f"{SECRETS}/vault", {"data": {"token": encoded(second)}})
    eventually(lambda: said()[-2:] == [digest(second)] * 2, said)
    eventually(lambda: reason() == "Running", status)
    after = status()
    assert after["revision"] != before
    assert after["attempts"] == 2  # the label alone restarted nobody

    shown = [crucible(*words).out for words in (("get", "keeper", "-o", "json"), ("describe", "keeper"))]
    shown += [
        json.dumps(call(places, "get", f"/api/v1/namespaces/default/{kind}")) for kind in ("pods", "events")
    ]
    shown += [crucible("events").out, (places.root.parent / "up.log").read_text()]
    stored = [path for path in files(places.root) if path.parent != places.control]
    for canary in (first, second, encoded(first), encoded(second)):
        assert not any(canary in text for text in shown)
        assert [path for path in stored if canary.encode() in contents(path)] == []
    call(places, "delete", f"{SECRETS}/vault")
