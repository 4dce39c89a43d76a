"""The bus of a cluster's plugins, with the real broker: known by its pod's address, or nobody."""

from __future__ import annotations

import asyncio
import signal
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from beside import until_offered
from ground import DEADLINE
from meeting import LABEL, SERVICE, Meeting, is_on_bus
from raw import Gone, Raw, words

from crucible.bus.wire import Frame, Kind

if TYPE_CHECKING:
    from ground import LocalGround


async def test_plugins_call_each_other_from_pod_to_pod_as_far_as_they_may(
    meeting: Meeting, local: LocalGround
) -> None:
    callee, caller = await asyncio.gather(
        meeting.plugin("split", subscribe=["notes.*"]),
        meeting.plugin("ask", call=["split.words"], publish=["notes.saved"]),
    )
    assert is_on_bus(callee)
    variables = {each["name"]: each.get("value") for each in callee["spec"]["containers"][0]["env"]}
    assert variables["CRUCIBLE_BUS"] == "tls://bus:3129"
    assert variables["CRUCIBLE_BUS_CA"] == "/run/crucible/ca.crt"
    assert callee["spec"]["hostAliases"] == [{"ip": "127.0.0.1", "hostnames": ["bus"]}]
    there = await meeting.join(callee, "words", "more")
    here = await meeting.join(caller)
    here.send(Frame(Kind.CALL, 1, "split.words", b'"to be"', deadline=20_000))
    asked = await there.next()
    assert (asked.name, asked.payload, asked.headers["from"]) == ("words", b'"to be"', "ask")
    there.send(Frame(Kind.ANSWER, asked.id, payload=b'["to","be"]'))
    assert (await here.next()).payload == b'["to","be"]'
    await there.ask(Frame(Kind.SUBSCRIBE, 3, "notes.*"))
    assert (await here.ask(Frame(Kind.PUBLISH, 5, "notes.saved", b"7"))).headers["reached"] == "1"
    assert (await there.next()).payload == b"7"
    for frame in (
        Frame(Kind.CALL, 7, "split.more", deadline=20_000),
        Frame(Kind.PUBLISH, 9, "notes.other"),
        Frame(Kind.SUBSCRIBE, 11, "notes.*"),
    ):
        assert words(await here.ask(frame))[2] == "NotPermitted"

    async def told() -> bool:
        events = (await local.client.get(local.path("events")))["items"]
        said = [each["message"] for each in events if each["reason"] == "BusDenied"]
        return any("add 'split.more' to spec.capabilities.bus.call" in each for each in said)

    await local.until(told, meeting.log)
    figures = await meeting.figures()
    assert 'crucible_bus_calls_total{namespace="default",plugin="ask"}' in figures
    assert 'crucible_bus_faults_total{namespace="default",plugin="ask"} 3' in figures
    assert "crucible_bus_open 2" in figures


async def test_nobody_else_comes_in(meeting: Meeting, local: LocalGround) -> None:
    """One that is no pod, one whose pod has no bus, and one that only says that it is a plugin's."""
    await meeting.plugin("split")
    await local.apply("silent")
    await local.until_ready("silent")
    (silent,) = await local.running("silent")
    assert not is_on_bus(silent)
    owner = silent["metadata"]["ownerReferences"][0]
    stranger = {
        "metadata": {
            "name": "stranger",
            "labels": {"app.kubernetes.io/managed-by": "crucible", LABEL: "true"},
            "ownerReferences": [{**owner, "controller": False}],
        },
        "spec": {
            "containers": [{"name": "a", "image": "b"}],
            "hostAliases": [{"ip": "127.0.0.1", "hostnames": ["bus"]}],
        },
    }
    await local.client.create(local.path("pods"), {"apiVersion": "v1", "kind": "Pod", **stranger})
    where = local.path("pods", "stranger")

    async def address() -> str:
        return str((await local.client.get(where)).get("status", {}).get("podIP") or "")

    posing = str(await local.until(address))
    addresses = [silent["status"]["podIP"], posing, "127.9.9.9", "127.0.0.1"]
    trust = await meeting.trust()
    answers = await asyncio.gather(*(meeting.connect(each, trust) for each in addresses))
    assert answers == [None] * len(addresses)
    assert "crucible_bus_strangers_total 4" in await meeting.figures()
    assert "a connection from 127.9.9.9 was refused" in meeting.log()


async def test_grants_change_under_who_is_connected_and_a_pod_that_goes_is_cut_off(
    meeting: Meeting, local: LocalGround
) -> None:
    callee, caller = await asyncio.gather(
        meeting.plugin("split"), meeting.plugin("ask", call=["split.words"])
    )
    there, here = await meeting.join(callee, "words"), await meeting.join(caller)
    await local.change("ask", capabilities={"bus": {"call": []}})

    async def refused() -> bool:
        ident = next(numbers)
        here.send(Frame(Kind.CALL, ident, "split.words", deadline=20_000))
        return words(await here.next())[2] == "NotPermitted"

    numbers = iter(range(1, 10_000, 2))
    answering = asyncio.create_task(_answer(there))
    await local.until(refused, meeting.log)
    (after,) = await local.running("ask")
    assert after["metadata"]["uid"] == caller["metadata"]["uid"], "a change of the list restarts nothing"
    await local.change("ask", suspend=True)
    assert await _is_cut(here)
    await local.delete("split")
    await asyncio.wait_for(answering, DEADLINE)


async def _answer(raw: Raw) -> None:
    """Answer every call, until the connection ends."""
    with suppress(Gone):
        while True:
            frame = await raw.next()
            raw.send(Frame(Kind.ANSWER, frame.id))


async def _is_cut(raw: Raw) -> bool:
    try:
        async with asyncio.timeout(DEADLINE):
            await raw.gone()
    except (ConnectionError, ssl.SSLError):
        return True
    return True


async def test_an_address_goes_to_the_next_pod_without_what_the_last_one_might(
    meeting: Meeting, local: LocalGround
) -> None:
    one, two = await asyncio.gather(meeting.plugin("one", publish=["a.b"]), meeting.plugin("two"))
    first = await meeting.join(one)
    there = {"podIP": one["status"]["podIP"], "podIPs": [{"ip": one["status"]["podIP"]}]}
    # While both have it, nobody does.
    await local.kubelet.say(two, there)
    assert await _is_cut(first)
    assert await meeting.connect(there["podIP"]) is None
    # Once the first has ended, it is the second's, and no more than that may be done.
    await local.change("one", suspend=True)

    async def is_two() -> bool:
        raw = await meeting.connect(there["podIP"])
        if raw is None:
            return False
        raw.send(Frame(Kind.HELLO, payload=b'{"wire":[1]}'))
        welcome = await raw.next()
        assert b'"plugin":"two"' in welcome.payload, welcome
        return words(await raw.ask(Frame(Kind.PUBLISH, 1, "a.b")))[2] == "NotPermitted"

    await local.until(is_two, meeting.log)


async def test_a_broker_that_is_killed_is_another_one_and_pods_are_told_whom_to_believe(
    meeting: Meeting, local: LocalGround
) -> None:
    pod = await meeting.plugin("split")
    old = await meeting.trust()
    raw = await meeting.join(pod)
    before = await meeting.authority()
    meeting.kill()
    assert await _is_cut(raw)
    meeting.begin()
    await local.until(lambda: meeting.port("bus"), meeting.log)

    async def renewed() -> bool:
        return await meeting.authority() != before

    await local.until(renewed, meeting.log)
    await meeting.join(pod)
    with pytest.raises(ssl.SSLCertVerificationError):
        await meeting.connect(pod["status"]["podIP"], old)
    assert meeting.process is not None
    meeting.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(meeting.process.wait, DEADLINE) == 0


async def test_a_plugin_is_refused_where_there_is_no_broker_and_held_where_there_is(
    local: LocalGround,
) -> None:
    local.start()
    await local.apply("talk", capabilities={"bus": {"call": ["other.m"]}})
    said = await local.until_condition("talk", "Stalled", "BusUnavailable")
    assert "bus.enabled=true" in said["message"]
    await local.end()
    await until_offered(local, "talk", "bus", SERVICE, 3129)
    # Who rebuilds labels from pods alone comes to the same.
    where = local.path("pods", "talk-0-1")
    await local.client.patch(where, {"metadata": {"labels": {LABEL: None}}})

    async def labelled() -> bool:
        return is_on_bus(await local.client.get(where))

    await local.until(labelled)
    # What this runtime has no part of the bus for is refused, with the field.
    await local.apply("keeps", capabilities={"store": {"size": "64Ki"}})
    said = await local.until_condition("keeps", "Stalled", "StoreUnavailable")
    assert "bus.nats.enabled=true" in said["message"]
