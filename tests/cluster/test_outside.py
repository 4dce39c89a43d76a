"""The bus of a cluster from outside of it: through the API server, to a door on a broker's loopback."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from forwarding import Forwarding
from ground import DEADLINE
from meeting import Meeting
from raw import Gone, Raw
from replicas import Natted

from crucible import manager as managers
from crucible import outside as reaching
from crucible.bus.host import CallFailed
from crucible.bus.wire import Frame, Kind
from crucible.control.kubeconfig import load_endpoint
from crucible.errors import InvalidInput, NotFound, Unavailable, Unsupported
from crucible.manager import PluginManager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from faults import Answer
    from ground import LocalGround

    from crucible.standing import Message

SECRET = "the-words-that-nobody-on-the-way-may-read"
CALLERS = ("--callers", "default", "--callers-port", "0")


class Program:
    """What runs in a pod: it answers, and publishes when it is told to; ``hangs`` is never answered."""

    def __init__(self, raw: Raw) -> None:
        self.calls: list[Frame] = []
        self._raw = raw
        self._serving = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        with suppress(Gone, TimeoutError):
            while True:
                frame = await self._raw.next()
                if frame.kind != Kind.CALL:
                    continue
                self.calls.append(frame)
                if frame.name == "tell":
                    self._raw.send(Frame(Kind.PUBLISH, 1, "notes.saved", frame.payload))
                if frame.name != "hangs":
                    said = {"caller": frame.headers["from"], "said": json.loads(frame.payload or b"null")}
                    self._raw.send(Frame(Kind.ANSWER, frame.id, payload=json.dumps(said).encode()))

    async def close(self) -> None:
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)


class Scene:
    """Brokers with a door for people outside, a plugin on each, and the API server that such people have."""

    def __init__(self, local: LocalGround, outside: Forwarding) -> None:
        self.local = local
        self.outside = outside
        self.kubeconfig = outside.kubeconfig(local.place / "outside")
        self._programs: list[Program] = []

    async def run(self, meeting: Meeting, name: str, store: dict[str, str] | None = None) -> Program:
        """Have a plugin serve that is connected to a broker."""
        pod = await meeting.plugin(name, store, publish=["notes.*"])
        program = Program(await meeting.join(pod, "words", "tell", "hangs"))
        self._programs.append(program)
        return program

    def manager(self, namespace: str = "default", release: str = "default") -> PluginManager:
        return PluginManager(kubeconfig=self.kubeconfig, namespace=namespace, release=release)

    async def crucible(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command as such a person does."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("crucible")),
            *(*arguments, "--kubeconfig", str(self.kubeconfig)),
            stdout=pipe,
            stderr=pipe,
            env={**os.environ, "CRUCIBLE_RELEASE": "default"},
        )
        async with asyncio.timeout(DEADLINE):
            out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    async def close(self) -> None:
        for program in self._programs:
            await program.close()


async def following(messages: AsyncIterator[Message]) -> Message:
    async with asyncio.timeout(DEADLINE):
        return await anext(messages)


@pytest.fixture
async def scene(local: LocalGround) -> AsyncIterator[Scene]:
    async with Forwarding(load_endpoint(local.place / "control" / "kubeconfig")) as outside:
        found = Scene(local, outside)
        yield found
        await found.close()


@pytest.fixture
async def meeting(local: LocalGround) -> AsyncIterator[Meeting]:
    found = Meeting(local, "broker", *CALLERS)
    try:
        await found.open()
        await found.local.until(lambda: found.port("callers"), found.log)
        yield found
    finally:
        await found.close()


async def test_people_outside_call_hear_and_look_and_nothing_of_it_can_be_read_on_the_way(
    scene: Scene, meeting: Meeting
) -> None:
    await meeting.hire()
    await meeting.until_it_speaks()
    await meeting.show_door("bus-1")
    async with scene.manager() as manager:
        events = await manager.events("split")
        await scene.run(meeting, "split")
        event = await following(events)
        assert (event.sender, event.payload["data"]["plugin"]) == ("$controller", "split")
        assert await manager.call("split.words", [SECRET]) == {"caller": "$host", "said": [SECRET]}
        heard = await manager.subscribe("notes.*")
        assert await manager.publish("notes.mine", SECRET) == 1
        mine = await following(heard)
        assert (mine.subject, mine.sender, mine.payload) == ("notes.mine", "$host", SECRET)
        await manager.call("split.tell", SECRET)
        told = await following(heard)
        assert (told.subject, told.sender, told.payload) == ("notes.saved", "split", SECRET)
        with pytest.raises(NotFound):
            await manager.call("nobody.words")
        await manager.wait_on_bus("split")
        large = "x" * 900_000
        assert (await manager.call("split.words", large))["said"] == large
    assert scene.outside.forwarded == ["bus-1"], "one connection for all"
    code, out, err = await scene.crucible("call", "split.words", json.dumps(SECRET), "-o", "json")
    assert (code, json.loads(out or "0")) == (0, {"caller": "$host", "said": SECRET}), err
    code, out, err = await scene.crucible("top", "bus", "-o", "json")
    (figures,) = [each for each in json.loads(out or "{}")["items"] if each["plugin"] == "split"]
    assert (figures["connections"], figures["methods"]) == (1, 3), err
    for words in (SECRET, "split", "notes", "wire", "x" * 64):
        assert words.encode() not in scene.outside.heard
    assert len(scene.outside.heard) > 1_800_000, "it went through here"
    assert meeting.log().count("somebody from outside of the cluster acts in default") == 3


async def test_they_act_where_they_were_let_and_are_nobody_elses_host(scene: Scene, meeting: Meeting) -> None:
    await meeting.show_door("bus-1")
    await scene.run(meeting, "split")
    async with scene.manager("kube-system") as manager:
        with pytest.raises(InvalidInput, match=r"bus\.callers\.namespaces"):
            await manager.call("split.words")
    trust = await meeting.trust()
    streams = await asyncio.open_connection(
        "127.0.0.1", meeting.port("callers"), ssl=trust, server_hostname="bus"
    )
    raw = Raw(*streams)
    raw.send(Frame(Kind.HELLO, payload=b'{"wire":[1],"namespace":"default","methods":["open"]}'))
    refused = await raw.next()
    assert (refused.name, b"offers no methods" in refused.payload) == ("NotPermitted", True)
    # The door is on the loopback alone.
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.2", meeting.port("callers"))
    for name, header in (("$bus.figures", {"namespace": "kube-system"}), ("$controller.ask", {})):
        caller = Raw(
            *await asyncio.open_connection(
                "127.0.0.1", meeting.port("callers"), ssl=trust, server_hostname="bus"
            )
        )
        await caller.greeted(namespace="default")
        answer = await caller.call(1, name, headers=header)
        if name == "$bus.figures":
            assert json.loads(answer.payload)["plugins"] == []
        else:
            assert answer.name == "NotPermitted"


async def test_who_may_not_is_told_what_it_takes(scene: Scene, meeting: Meeting) -> None:
    async def why(kind: type[Exception], release: str = "default") -> str:
        async with scene.manager(release=release) as manager:
            with pytest.raises(kind) as caught:
                await manager.call("split.words", timeout=5)
        return str(caught.value)

    async def remake(**words: Any) -> None:
        await scene.local.client.end(scene.local.path("pods", "bus-1"), await uid(), 0)
        await meeting.show_door("bus-1", **words)

    async def uid() -> str:
        pod = await scene.local.client.get(scene.local.path("pods", "bus-1"))
        return str(pod["metadata"]["uid"])

    assert "no broker in namespace kube-system" in await why(Unsupported, "kube-system")
    await meeting.show_door("bus-1", named=False)
    assert "set bus.callers.namespaces" in await why(Unsupported)
    await remake()

    def forbid(what: str) -> None:
        def answer(verb: str, path: str) -> Answer | None:
            said = f'pods is forbidden: User "eve" cannot {verb} resource "{what}"'
            return (403, said) if path.endswith(what) else None

        scene.outside.answer = answer

    for what in ("/pods", "/portforward", "/crucible-bus-ca"):
        forbid(what)
        said = await why(InvalidInput)
        assert "forbidden" in said, what
        assert "Role for callers" in said, what
    scene.outside.answer = lambda _verb, _path: None
    # Another authority is not believed, whoever answers.
    ca = scene.local.path("configmaps", "crucible-bus-ca")
    shown = await meeting.authority()
    meeting.kill()
    code, _, err = await scene.crucible("call", "split.words")
    assert (code, "error forwarding port" in err) == (5, True), err
    meeting.begin()
    await scene.local.until(lambda: meeting.port("callers"), meeting.log)

    async def renewed() -> bool:
        return await meeting.authority() != shown

    await scene.local.until(renewed, meeting.log)
    await remake()

    async def disbelieved() -> bool:
        await scene.local.client.patch(ca, {"data": {"ca.crt": shown}})  # which the broker puts right again
        code, _, err = await scene.crucible("call", "split.words")
        return (code, "CERTIFICATE_VERIFY_FAILED" in err) == (5, True)

    await scene.local.until(disbelieved, meeting.log)


@pytest.fixture
async def replicas(local: LocalGround) -> AsyncIterator[tuple[Meeting, Meeting]]:
    """Two brokers that are one, each with its door."""
    server = Natted(local.place / "nats")
    arguments = (*server.arguments(), *CALLERS)
    one, two = Meeting(local, "broker-one", *arguments), Meeting(local, "broker-two", *arguments)
    try:
        await server.start()
        two.begin()
        await one.open("--stores")

        async def joined() -> bool:
            told = [await each.figures() for each in (one, two) if each.port("callers")]
            return len(told) == 2 and all("crucible_bus_replicas 1" in text for text in told)

        await local.until(joined, lambda: one.log() + two.log() + server.log())
        yield one, two
    finally:
        await one.close()
        await two.close()
        server.kill()


async def test_any_replica_will_do_and_when_one_goes_calls_end_typed_and_the_next_finds_another(
    scene: Scene, replicas: tuple[Meeting, Meeting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaching, "_REACH", 4.0)
    monkeypatch.setattr(managers, "BUS_PATIENCE", DEADLINE)
    one, two = replicas
    await scene.run(one, "split", {"size": "64Ki"})
    await one.show_door("bus-1")
    async with scene.manager() as manager:
        # The plugin is connected to one broker, and is called through either.
        await manager.wait_on_bus("split")
        assert (await manager.call("split.words", 1))["said"] == 1
    await two.show_door("bus-2")
    scene.outside.silent.add("bus-1")
    async with scene.manager() as manager:
        await manager.wait_on_bus("split")
        assert (await manager.call("split.words", 2))["caller"] == "$host"
        assert set(scene.outside.forwarded[1:]) == {"bus-2"}
        heard = await manager.subscribe("notes.*")
        await manager.call("split.tell", 3)
        assert (await following(heard)).payload == 3
        scene.outside.silent.clear()
        code, _, err = await scene.crucible("store", "put", "split", "total", "7")
        assert code == 0, err
        code, out, err = await scene.crucible("store", "get", "split", "total")
        assert (code, out) == (0, "7"), err
        code, out, err = await scene.crucible("top", "bus", "-o", "json")
        (figures,) = [each for each in json.loads(out or "{}")["items"] if each["plugin"] == "split"]
        assert (figures["connections"], {"bus-1", "bus-2"} <= set(scene.outside.forwarded)) == (1, True), err
        # Its broker is killed while a call is open.
        scene.outside.silent.add("bus-1")
        open_call = asyncio.create_task(manager.call("split.hangs", timeout=60))
        await scene.local.until(lambda: scene._programs[0].calls[-1].name == "hangs")
        two.kill()
        with pytest.raises(CallFailed, match="Unavailable"):
            await open_call
        with pytest.raises(Unavailable):
            await following(heard)
        scene.outside.silent.clear()
        assert (await manager.call("split.words", 4))["said"] == 4
        assert scene.outside.forwarded[-1] == "bus-1"
        # A node that vanishes hangs up on nobody; whoever cuts the way ends what was open all the same.
        open_call = asyncio.create_task(manager.call("split.hangs", timeout=60))
        await scene.local.until(lambda: scene._programs[0].calls[-1].name == "hangs")
        await scene.outside.lose("bus-1")
        with pytest.raises(CallFailed, match="Unavailable"):
            await open_call
        assert (await manager.call("split.words", 5))["said"] == 5
