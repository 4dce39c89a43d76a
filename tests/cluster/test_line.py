"""The operator's line to the broker of a cluster: what it asks there, what it tells, and who has none."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from ground import condition
from raw import Gone, Raw, words

from crucible.bus.line import ASK, NOTICES
from crucible.bus.wire import Frame, Kind

if TYPE_CHECKING:
    from ground import LocalGround
    from meeting import Meeting


class Program:
    """What runs in a pod: it answers what it is called for, and keeps what it hears."""

    def __init__(self, raw: Raw, *silent: str) -> None:
        self.silent = set(silent)
        self.calls: list[Frame] = []
        self.messages: list[Frame] = []
        self._raw = raw
        self._serving = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        with suppress(Gone, TimeoutError):
            while True:
                frame = await self._raw.next()
                if frame.kind == Kind.MESSAGE:
                    self.messages.append(frame)
                elif frame.kind == Kind.CALL:
                    self.calls.append(frame)
                    if frame.name not in self.silent:
                        self._raw.send(Frame(Kind.ANSWER, frame.id, payload=frame.payload))

    def called(self, name: str) -> list[bytes]:
        """Return with what it was called by a name."""
        return [frame.payload for frame in self.calls if frame.name == name]

    def answer(self, name: str) -> None:
        """Answer every call of that name now."""
        self.silent.discard(name)
        for frame in self.calls:
            if frame.name == name:
                self._raw.send(Frame(Kind.ANSWER, frame.id))

    def close(self) -> None:
        self._serving.cancel()


async def test_pings_and_configurations_go_over_the_line_and_an_end_waits_for_the_last_answer(
    meeting: Meeting, local: LocalGround
) -> None:
    await meeting.hire()
    await local.apply(
        "kept",
        capabilities={"bus": {}},
        health={"ready": {"ping": {}, "interval": "100ms", "failures": 1}},
        configDelivery="bus",
        config={"a": 1},
        lifecycle={"drain": "1h"},
    )
    (pod,) = await local.until(lambda: local.running("kept"))
    plugin = await local.plugin("kept")
    assert condition(plugin, "Ready")["status"] != "True", "nobody has answered yet"
    kept = Program(await meeting.join(pod, "words"), "words")
    await local.until_ready("kept")
    assert kept.called("$ping")[-1] == b"are you there?"
    assert kept.calls[-1].headers["from"] == "$controller"
    await local.change("kept", config={"a": 2})
    await local.until(lambda: [json.loads(each) for each in kept.called("$config")] == [{"a": 2}])
    await local.until_ready("kept")
    (same,) = await local.running("kept")
    assert same["metadata"]["uid"] == pod["metadata"]["uid"], "what takes it is not started anew"
    caller = await meeting.join(await meeting.plugin("ask", call=["kept.words"]))
    caller.send(Frame(Kind.CALL, 1, "kept.words", deadline=60_000))
    await local.until(lambda: kept.called("words"))
    await local.change("kept", suspend=True)

    async def draining() -> bool:
        return bool((await local.plugin("kept"))["status"].get("draining"))

    await local.until(draining)
    caller.send(Frame(Kind.CALL, 3, "kept.words", deadline=60_000))
    assert words(await caller.next()) == ("ERROR", 3, "Unavailable"), "it is given nothing new"
    assert await local.running("kept"), "what it has it may finish"
    kept.answer("words")
    assert words(await caller.next())[:2] == ("ANSWER", 1)

    async def ended() -> bool:
        return not await local.pods("kept")

    await local.until(ended)
    kept.close()


async def test_plugins_hear_the_operators_events_and_what_the_bus_refused_shows_on_who_asked(
    meeting: Meeting, local: LocalGround
) -> None:
    await meeting.hire()
    listener = await meeting.join(await meeting.plugin("hears", subscribe=["crucible.events.>"]))
    await listener.ask(Frame(Kind.SUBSCRIBE, 1, "crucible.events.>"))
    await meeting.until_it_speaks()
    hears = Program(listener)
    asker = await meeting.join(await meeting.plugin("asks"))
    assert words(await asker.call(1, "hears.words"))[2] == "NotPermitted"
    said = await local.until_condition("asks", "Degraded", "Limited", "call hears.words")
    assert "what the manifest does not grant (1 times" in said["message"]

    async def told() -> bool:
        events = (await local.client.get(local.path("events")))["items"]
        return any(each["reason"] == "BusDenied" for each in events)

    await local.until(told)

    def heard() -> list[str]:
        return [frame.name for frame in hears.messages]

    await local.until(lambda: "crucible.events.asks.Started" in heard(), heard)
    event = next(frame for frame in hears.messages if frame.name == "crucible.events.asks.Started")
    body = json.loads(event.payload)
    assert (event.headers["from"], body["type"]) == ("$controller", "dev.crucible.plugin.Started")
    assert (body["data"]["plugin"], body["data"]["namespace"]) == ("asks", "default")
    # Nobody else has what the operator has there, and nobody speaks in its name.
    for frame in (
        Frame(Kind.CALL, 3, ASK, b'{"open":[]}'),
        Frame(Kind.SUBSCRIBE, 5, NOTICES),
        Frame(Kind.PUBLISH, 7, "crucible.events.asks.Started"),
    ):
        assert words(await asker.ask(frame))[2] == "NotPermitted"
    hears.close()


async def test_a_pod_that_is_not_wholly_the_operators_is_nobody_and_the_operators_last_one_leads(
    meeting: Meeting, local: LocalGround
) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}
    await local.client.create("/api/v1/namespaces", namespace)
    posing = await asyncio.gather(
        meeting.staff("unlabelled", label="false"),
        meeting.staff("elsewhere", "other"),
        meeting.staff("lesser", serviceAccountName="default"),
        meeting.staff("wide", hostNetwork=True),
    )
    first, second = await asyncio.gather(meeting.staff("operator-a"), meeting.staff("operator-b"))
    trust = await meeting.trust()
    found = await asyncio.gather(*(meeting.connect(pod["status"]["podIP"], trust) for pod in posing))
    assert found == [None] * len(posing), "a copied label, an account, or a namespace is not enough"
    one = await meeting.join(first)
    assert (await one.call(1, ASK, b'{"open": ["a/0-1/bus"]}')).payload == b'{"open":{"a/0-1/bus":0}}'
    assert words(await one.ask(Frame(Kind.PUBLISH, 3, "a.b")))[2] == "NotPermitted"
    assert words(await one.call(5, "split.words"))[2] == "NotPermitted"
    assert words(await one.call(7, ASK, b"[]"))[2] == "Malformed"
    two = await meeting.join(second)
    await one.gone()
    assert words(await two.ask(Frame(Kind.SUBSCRIBE, 1, NOTICES)))[0] == "ANSWER"
    await local.kubelet.finish(second, 0)
    await two.gone()


async def test_a_broker_that_is_killed_is_spoken_to_again_and_an_operator_that_ends_is_followed(
    meeting: Meeting, local: LocalGround
) -> None:
    operator = await meeting.hire()
    pod = await meeting.plugin("asks", publish=["a.b"])
    await meeting.until_it_speaks()
    meeting.kill()
    await local.until(lambda: "the bus went away" in local.log(), meeting.log)
    meeting.begin()
    await local.until(lambda: meeting.port("bus"), meeting.log)
    await meeting.announce()
    await meeting.until_it_speaks()
    assert "the certificate" not in local.log()
    asker = await meeting.join(pod)
    assert words(await asker.ask(Frame(Kind.PUBLISH, 1, "a.c")))[2] == "NotPermitted"
    await local.until_condition("asks", "Degraded", "Limited", "publish a.c")
    # Once the operator's pod has lost its address, whoever has it now is not the operator.
    local.operators["one"].send_signal(signal.SIGSTOP)
    await local.kubelet.finish(operator, 0)
    assert await meeting.connect("127.0.0.1") is None
    local.operators["one"].send_signal(signal.SIGCONT)
    await local.until(lambda: local.log().rstrip().splitlines()[-1].count("cannot be spoken to"), local.log)
