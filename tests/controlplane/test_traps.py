"""One test for every trap that was found while real clients were recorded."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from probe import APPLY, PLUGINS, SECRETS, TABLE, Probe, plugin, until

from crucible.control.apiserver import ApiServer, ServerSettings
from crucible.control.apiserver.keys import Event, Key
from crucible.control.apiserver.protobuf import MAGIC
from crucible.errors import Conflict, InvalidInput

PROTOBUF = "application/vnd.kubernetes.protobuf"


def field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def envelope(api_version: str, kind: str, body: bytes) -> bytes:
    type_meta = field(1, api_version.encode()) + field(2, kind.encode())
    return MAGIC + field(1, type_meta) + field(2, body)


async def test_protobuf_secret_is_stored_as_json_would_be(probe: Probe) -> None:
    entry = field(1, b"key") + field(2, b"value")
    body = field(1, field(1, b"pb")) + field(2, entry) + field(3, b"Opaque")
    made = await probe.post(SECRETS, envelope("v1", "Secret", body), media=PROTOBUF)
    assert made.code == 201, made.body
    assert made.body["data"] == {"key": base64.b64encode(b"value").decode()}


async def test_protobuf_with_an_unknown_field_is_refused_not_dropped(probe: Probe) -> None:
    body = field(1, field(1, b"pb")) + field(9, b"x")
    refused = await probe.post(SECRETS, envelope("v1", "Secret", body), media=PROTOBUF)
    assert refused.code == 400
    assert "unknown protobuf field 9" in refused.body["message"]


async def test_plain_http_is_not_spoken(server: ApiServer) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(server.url.replace("https", "http") + "/version")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:443", ""])
async def test_a_foreign_host_header_is_refused(probe: Probe, host: str) -> None:
    assert (await probe.get("/version", headers={"Host": host})).code in {400, 403}


async def test_any_origin_header_is_refused(probe: Probe) -> None:
    assert (await probe.get("/version", headers={"Origin": "https://localhost"})).code == 403


@pytest.mark.parametrize("path", ["/version", "/readyz", "/metrics", "/api", "/openapi/v3", PLUGINS, "/nope"])
async def test_every_path_needs_the_token(probe: Probe, path: str) -> None:
    refused = await probe.get(path, headers={"Authorization": "Bearer wrong"})
    assert (refused.code, refused.body["reason"]) == (401, "Unauthorized")


async def test_figures_are_told_once_there_are_some(server: ApiServer, probe: Probe) -> None:
    assert (await probe.get("/metrics")).code == 503
    server.tell_figures(lambda: "crucible_leader 1\n")
    assert (await probe.get("/metrics")).code == 200
    assert (await probe.post("/metrics", {})).code == 405


async def test_a_client_certificate_will_do_instead_of_the_token(server: ApiServer) -> None:
    folder = server.ca.parent
    context = ssl.create_default_context(cafile=str(server.ca))
    context.load_cert_chain(folder / "client.crt", folder / "client.key")
    async with (
        aiohttp.ClientSession() as session,
        session.get(server.url + "/version", ssl=context) as response,
    ):
        assert response.status == 200


async def test_only_loopback_is_listened_on(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="loopback"):
        ApiServer(ServerSettings(state_dir=tmp_path, host="0.0.0.0"))  # noqa: S104 - what must be refused


async def test_private_files_are_private(server: ApiServer) -> None:
    folder = server.kubeconfig.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("kubeconfig", "token", "ca.key", "server.key", "client.key", "control.db", "lock"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name


async def test_initial_events_end_with_the_annotated_bookmark(probe: Probe) -> None:
    initial = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    async with probe.watch(f"{PLUGINS}?watch=true&{initial}") as watch:
        mark = await watch.next()
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_openapi_v3_has_core_kinds_and_v2_is_not_there(probe: Probe) -> None:
    index = (await probe.get("/openapi/v3")).body["paths"]
    core = (await probe.get(index["api/v1"]["serverRelativeURL"])).body
    patch = core["paths"]["/api/v1/namespaces/{namespace}/configmaps/{name}"]["patch"]
    assert "fieldValidation" in [item["name"] for item in patch["parameters"]]
    assert (await probe.get("/openapi/v2")).code == 404


async def test_the_port_stays_the_same_over_restarts(tmp_path: Path) -> None:
    settings = ServerSettings(state_dir=tmp_path / "state")
    async with ApiServer(settings) as first:
        before = first.url, first.token, first.ca.read_bytes()
    async with ApiServer(settings) as second:
        assert (second.url, second.token, second.ca.read_bytes()) == before


async def test_a_yaml_key_y_arrives_as_kubectl_makes_it(probe: Probe) -> None:
    text = yaml.safe_dump(plugin("word")).replace("image: x", "image: x\n  config: {y: 1, off: 2}")
    made = await probe.patch(f"{PLUGINS}/word?fieldManager=m", text, APPLY)
    assert made.body["spec"]["config"] == {"true": 1, "false": 2}


async def test_the_kubeconfig_names_the_default_namespace(server: ApiServer) -> None:
    config = yaml.safe_load(server.kubeconfig.read_text())
    assert config["contexts"][0]["context"]["namespace"] == "default"


async def test_a_missing_namespace_is_404(probe: Probe) -> None:
    assert (await probe.post(PLUGINS.replace("default", "nowhere"), plugin("a"))).code == 404


async def test_a_closed_watch_leaves_nothing_behind(probe: Probe, server: ApiServer) -> None:
    async with probe.watch(f"{PLUGINS}?watch=1") as watch:
        assert watch.code == 200
        assert server._hub.count() == 1

    async def none_left() -> bool:
        return server._hub.count() == 0

    await until(none_left)


async def test_a_body_of_two_megabytes_is_taken_and_four_are_not(probe: Probe) -> None:
    assert (await probe.post(PLUGINS, plugin("big", config={"a": "x" * 2_000_000}))).code == 201
    assert (await probe.post(PLUGINS, plugin("big2", config={"a": "x" * 4_000_000}))).code == 413


async def test_a_second_owner_is_told_the_pid_of_the_first(server: ApiServer) -> None:
    code = "import sys; from crucible.control.apiserver.__main__ import main; sys.exit(main())"
    argv = [sys.executable, "-c", code, "--state-dir", str(server.kubeconfig.parent)]
    refused = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert f"in use by process {os.getpid()}" in refused.stderr
    with pytest.raises(Conflict):
        async with ApiServer(ServerSettings(state_dir=server.kubeconfig.parent)):
            raise AssertionError("opened twice")


async def test_a_slow_watcher_is_closed_and_others_are_not(tmp_path: Path, crd: dict[str, Any]) -> None:
    settings = ServerSettings(state_dir=tmp_path / "state", watch_queue=2)
    async with ApiServer(settings, crds=[crd]) as server:
        slow = server._hub.open("plugins.probe.dev", "")
        for _ in range(3):
            slow.offer(_event())
        assert slow.closed
        assert await slow.take(0) == []


def _event() -> Any:
    return Event("ADDED", 1, Key("plugins.probe.dev", "default", "a"), b"{}", None)


async def test_a_long_list_lets_the_loop_breathe(probe: Probe) -> None:
    for at in range(60):
        await probe.post(PLUGINS, plugin(f"p{at:03}"))
    table = await probe.get(PLUGINS, accept=TABLE)
    assert [row["cells"][0] for row in table.body["rows"]] == [f"p{at:03}" for at in range(60)]


async def test_applying_the_same_again_writes_nothing_however_late(probe: Probe) -> None:
    first = await probe.apply("same", "m", {"spec": {"image": "x", "env": [{"name": "A"}]}})
    started = first.body["metadata"]["managedFields"][0]["time"]

    async def later() -> bool:
        fresh = await probe.apply("clock", "m", {"spec": {"image": "x"}})
        made = fresh.body["metadata"]["managedFields"][0]["time"] != started
        await probe.delete(f"{PLUGINS}/clock")
        return bool(made)

    await until(later)
    again = await probe.apply("same", "m", {"spec": {"image": "x", "env": [{"name": "A"}]}})
    assert again.body == first.body


async def test_who_applied_the_only_label_may_take_it_back(probe: Probe) -> None:
    made = await probe.apply("labelled", "m", {"metadata": {"labels": {"team": "a"}}, "spec": {"image": "x"}})
    assert made.body["metadata"]["labels"] == {"team": "a"}
    now = await probe.apply("labelled", "m", {"spec": {"image": "x"}})
    assert (now.code, now.body["metadata"]["uid"]) == (200, made.body["metadata"]["uid"])
    assert "labels" not in now.body["metadata"]


async def test_items_of_keyed_lists_go_whole_and_dots_are_where_they_belong(probe: Probe) -> None:
    await probe.apply(
        "keyed", "m1", {"spec": {"image": "x", "env": [{"name": "A", "value": "1"}, {"name": "B"}]}}
    )
    gone = await probe.apply("keyed", "m1", {"spec": {"image": "x", "env": [{"name": "B"}]}})
    assert gone.body["spec"]["env"] == [{"name": "B"}]
    made = await probe.post(PLUGINS, plugin("updated", env=[{"name": "A", "value": "1"}]))
    owned = made.body["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]
    assert owned["."] == {}
    assert owned["f:env"]["."] == {}
    assert (
        json.dumps(owned["f:env"]['k:{"name":"A"}'], sort_keys=True)
        == '{".": {}, "f:name": {}, "f:value": {}}'
    )


async def test_settings_keep_their_documented_limits() -> None:
    settings = ServerSettings(state_dir=Path("unused"))
    assert settings.max_body == 3 * 1024 * 1024
    assert replace(settings, port=1).port == 1
