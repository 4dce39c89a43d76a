"""The way out of a cluster's plugins, with the real proxy: known by its pod's address, or nobody."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import pytest
from beside import until_offered
from ground import DEADLINE
from way_out import SERVICE, WayOut, address_of, has_way_out, is_cut, said_back

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ground import LocalGround


@pytest.fixture
async def out(local: LocalGround) -> AsyncIterator[WayOut]:
    way = WayOut(local)
    try:
        await way.open()
        yield way
    finally:
        await way.close()


async def test_a_plugin_gets_to_where_it_may_and_nowhere_else_and_people_are_told(
    out: WayOut, local: LocalGround
) -> None:
    port, other = await out.echo(), await out.echo()
    pod = await out.plugin("fetch", f"127.0.0.1:{port}")
    assert has_way_out(pod)
    variables = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
    assert variables["HTTPS_PROXY"] == variables["https_proxy"] == "http://egress:3128"
    assert pod["spec"]["hostAliases"] == [{"ip": "127.0.0.1", "hostnames": ["egress"]}]
    await out.tunnel(address_of(pod), f"127.0.0.1:{port}")
    said, _ = await out.call(address_of(pod), f"127.0.0.1:{other}")
    assert said.startswith("HTTP/1.1 403 ")
    assert f"add '127.0.0.1:{other}' to capabilities.network.connect" in said
    said, _ = await out.call(address_of(pod), "db.internal.example:5432")
    assert "db.internal.example:5432 is not in the plugin's list" in said

    async def told() -> list[str]:
        events = (await local.client.get(local.path("events")))["items"]
        return [each["message"] for each in events if each["reason"] == "EgressDenied"]

    await local.until(lambda: _some(told, f"add '127.0.0.1:{other}' to spec.capabilities.network.connect"))
    assert (
        f"WARNING default/fetch: 127.0.0.1 is a loopback address; to allow it, add '127.0.0.1:{other}'"
        in out.log()
    )
    figures = await out.figures()
    assert 'crucible_egress_denied_total{namespace="default",plugin="fetch"} 2' in figures
    assert 'crucible_egress_connections_total{namespace="default",plugin="fetch"} 1' in figures
    assert 'crucible_egress_bytes_total{namespace="default",plugin="fetch",direction="sent"} 5' in figures


async def test_nobody_else_gets_out(out: WayOut, local: LocalGround) -> None:
    """One that is no pod, one whose pod has no way out, and one that only says that it is a plugin's."""
    port = await out.echo()
    await out.plugin("fetch", f"127.0.0.1:{port}")
    silent = await out.plugin("silent")
    assert not has_way_out(silent)
    owner = silent["metadata"]["ownerReferences"][0]
    stranger = {
        "metadata": {
            "name": "stranger",
            "labels": {"app.kubernetes.io/managed-by": "crucible", "crucible.dev/egress": "true"},
            "ownerReferences": [{**owner, "controller": False}],
        },
        "spec": {"containers": [{"name": "a", "image": "b"}], "hostAliases": [_alias()]},
    }
    await local.client.create(local.path("pods"), {"apiVersion": "v1", "kind": "Pod", **stranger})
    where = local.path("pods", "stranger")
    await local.until(lambda: _has_address(local, where))
    addresses = [address_of(silent), address_of(await local.client.get(where)), "127.9.9.9", "127.0.0.1"]
    answers = await asyncio.gather(*(out.call(each, f"127.0.0.1:{port}") for each in addresses))
    assert [said for said, _ in answers] == [""] * len(addresses)
    assert "crucible_egress_strangers_total 4" in await out.figures()
    assert "a connection from 127.9.9.9 was refused" in out.log()


async def test_the_list_changes_under_what_goes_on(out: WayOut, local: LocalGround) -> None:
    stays, goes = await out.echo(), await out.echo()
    pod = await out.plugin("fetch", f"127.0.0.1:{stays}", f"127.0.0.1:{goes}")
    kept = await out.tunnel(address_of(pod), f"127.0.0.1:{stays}")
    lost = await out.tunnel(address_of(pod), f"127.0.0.1:{goes}")
    await local.change("fetch", capabilities={"network": {"connect": [f"127.0.0.1:{stays}"]}})
    assert await is_cut(lost)
    assert await said_back(kept, b"still here")
    said, _ = await out.call(address_of(pod), f"127.0.0.1:{goes}")
    assert said.startswith("HTTP/1.1 403 ")
    (after,) = await local.running("fetch")
    assert after["metadata"]["uid"] == pod["metadata"]["uid"], "a change of the list restarts nothing"


async def test_an_address_goes_to_the_next_pod_without_what_the_last_one_might(
    out: WayOut, local: LocalGround
) -> None:
    first, second = await out.echo(), await out.echo()
    one = await out.plugin("one", f"127.0.0.1:{first}")
    address = address_of(one)
    open_still = await out.tunnel(address, f"127.0.0.1:{first}")
    two = await out.plugin("two", f"127.0.0.1:{second}")
    there = {"podIP": address, "podIPs": [{"ip": address}]}
    # While both have it, nobody does.
    await local.kubelet.say(two, there)
    assert await is_cut(open_still)
    assert (await out.call(address, f"127.0.0.1:{first}"))[0] == ""
    # Once the first has ended, it is the second's, and no more than that may be reached.
    await local.change("one", suspend=True)
    await local.until(lambda: _gone(local, "one"))
    await out.tunnel(address, f"127.0.0.1:{second}")
    said, _ = await out.call(address, f"127.0.0.1:{first}")
    assert said.startswith("HTTP/1.1 403 ")
    await local.delete("two")
    await local.until(lambda: _gone(local, "two"))
    assert (await out.call(address, f"127.0.0.1:{second}"))[0] == ""


async def test_while_the_cluster_cannot_be_asked_nobody_new_gets_out(out: WayOut, local: LocalGround) -> None:
    port = await out.echo()
    pod = await out.plugin("fetch", f"127.0.0.1:{port}")
    before = await out.tunnel(address_of(pod), f"127.0.0.1:{port}")
    local.faults.away = True
    local.faults.cut()

    async def refused() -> bool:
        return (await out.call(address_of(pod), f"127.0.0.1:{port}"))[0] == ""

    await local.until(refused, out.log)
    assert await said_back(before, b"goes on")
    local.faults.away = False

    async def let_out() -> bool:
        return (await out.call(address_of(pod), f"127.0.0.1:{port}"))[0].startswith("HTTP/1.1 200 ")

    await local.until(let_out, out.log)


async def test_it_stops_once_what_goes_on_has_ended(out: WayOut) -> None:
    port = await out.echo()
    pod = await out.plugin("fetch", f"127.0.0.1:{port}")
    reader, writer = await out.tunnel(address_of(pod), f"127.0.0.1:{port}")
    assert out.process is not None
    out.process.send_signal(signal.SIGTERM)
    await out.local.until(lambda: "no new connection is taken" in out.log(), out.log)
    assert await said_back((reader, writer), b"to the end")
    writer.close()
    assert await asyncio.to_thread(out.process.wait, DEADLINE) == 0


async def test_a_plugin_is_refused_where_there_is_no_proxy_and_held_where_there_is(
    local: LocalGround,
) -> None:
    local.start()
    await local.apply("fetch", capabilities={"network": {"connect": ["api.example.com:443"]}})
    said = await local.until_condition("fetch", "Stalled", "EgressUnavailable")
    assert "egress.enabled=true" in said["message"]
    await local.end()
    rule = await until_offered(local, "fetch", "egress", SERVICE, 3128)
    # Who rebuilds the rules from pods alone comes to the same.
    await local.client.patch(local.path("networkpolicies", "crucible-fetch"), {"spec": {"egress": [{}]}})

    async def put_back() -> bool:
        live = await local.client.get(local.path("networkpolicies", "crucible-fetch"))
        return bool(live["spec"]["egress"] == [rule])

    await local.until(put_back)
    where = local.path("pods", "fetch-0-1")
    await local.client.patch(where, {"metadata": {"labels": {"crucible.dev/egress": None}}})

    async def labelled() -> bool:
        return has_way_out(await local.client.get(where))

    await local.until(labelled)


def _alias() -> dict[str, Any]:
    return {"ip": "127.0.0.1", "hostnames": ["egress"]}


async def _some(told: Any, words: str) -> bool:
    return any(words in each for each in await told())


async def _has_address(local: LocalGround, where: str) -> bool:
    return bool((await local.client.get(where)).get("status", {}).get("podIP"))


async def _gone(local: LocalGround, name: str) -> bool:
    return not (await local.client.get(local.path("pods"), {"labelSelector": f"crucible.dev/plugin={name}"}))[
        "items"
    ]
