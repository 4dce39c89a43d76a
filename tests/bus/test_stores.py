"""Stores over the wire: each plugin's own, guarded by revisions, held to its size, still there later."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING

import pytest
from raw import DEADLINE, Raw, words

from crucible.bus import bucket, watches, wire
from crucible.bus.bucket import OVERHEAD, Bucket
from crucible.bus.wire import Frame, Kind

if TYPE_CHECKING:
    from conftest import Bus
    from crucible.bus.stores import Stores


async def put(client: Raw, ident: int, key: str, value: bytes, **headers: str) -> Frame:
    return await client.call(ident, "$store.put", value, headers={"key": key, **headers})


async def get(client: Raw, ident: int, key: str, **headers: str) -> Frame:
    return await client.call(ident, "$store.get", headers={"key": key, **headers})


@pytest.mark.usefixtures("stores")
async def test_what_is_put_is_got_and_revisions_guard_it(bus: Bus) -> None:
    client = await bus.add("notes", store=1000)
    assert (await put(client, 1, "a", b"\0one", revision="0")).headers == {"revision": "1"}
    got = await get(client, 3, "a")
    assert (got.payload, got.headers) == (b"\0one", {"revision": "1"})
    conflict = await put(client, 5, "a", b"two", revision="7")
    assert (words(conflict), conflict.headers) == (("ERROR", 5, "Conflict"), {"revision": "1"})
    assert (await put(client, 7, "a", b"two", revision="1")).headers == {"revision": "2"}
    listed = json.loads((await client.call(9, "$store.list")).payload)
    assert listed == {
        "keys": [{"key": "a", "revision": 2, "size": 3}],
        "more": False,
        "used": 4 + OVERHEAD,
        "size": 1000,
    }
    gone = await client.call(11, "$store.delete", headers={"key": "a"})
    assert gone.headers == {"revision": "3"}
    assert words(await get(client, 13, "a")) == ("ERROR", 13, "NotFound")
    assert words(await client.call(15, "$store.delete", headers={"key": "a"})) == ("ERROR", 15, "NotFound")


@pytest.mark.usefixtures("stores")
async def test_a_store_is_held_to_its_size_and_the_excess_is_reported(bus: Bus) -> None:
    client = await bus.add("greedy", store=1000 + OVERHEAD)
    assert words(await put(client, 1, "a", b"x" * 1000)) == ("ERROR", 1, "StoreFull")
    assert words(await put(client, 3, "a", b"x" * 900)) == ("ANSWER", 3, "")
    assert words(await put(client, 5, "b", b"x" * 900)) == ("ERROR", 5, "StoreFull")
    assert bus.faults("greedy") == {"storeFull": 2}


@pytest.mark.usefixtures("stores")
async def test_tiny_keys_without_end_are_refused_and_others_go_on(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "KEYS", 200)
    hostile, other = await bus.add("hostile", store=2**30), await bus.add("other", store=10_000)
    refused = 0
    for first in range(0, 300, 50):
        hostile.send(
            *(
                Frame(Kind.CALL, 2 * n + 1, "$store.put", b"", {"key": f"k{n}"})
                for n in range(first, first + 50)
            )
        )
        answers = [words(await hostile.next()) for _ in range(50)]
        refused += sum(code == "StoreFull" for _, _, code in answers)
    assert refused == 100
    assert bus.faults("hostile") == {"storeFull": 100}
    listed = json.loads((await hostile.call(9001, "$store.list")).payload)
    assert len(listed["keys"]) == 200
    assert words(await put(other, 1, "a", b"1")) == ("ANSWER", 1, "")


@pytest.mark.usefixtures("stores")
async def test_who_has_no_store_is_refused_and_nobody_reaches_anothers(bus: Bus) -> None:
    owner = await bus.add("owner", store=1000)
    await put(owner, 1, "secret", b"mine")
    poor = await bus.add("poor")
    answer = await get(poor, 1, "secret")
    assert words(answer) == ("ERROR", 1, "NotPermitted")
    assert b"spec.capabilities.store" in answer.payload
    for ident, verb in ((3, "put"), (5, "delete"), (7, "list"), (9, "watch")):
        asked = Frame(Kind.CALL, ident, f"$store.{verb}", headers={"key": "secret"}, flags=wire.STREAM)
        assert words(await poor.ask(asked)) == ("ERROR", ident, "NotPermitted"), verb
    assert bus.faults("poor") == {"refused": 5}, "each is reported"
    for number, other in enumerate(
        [await bus.add("other", store=1000), await bus.add("owner", namespace="there", store=1000)]
    ):
        assert words(await get(other, 1, "secret", plugin="owner")) == ("ERROR", 1, "NotFound"), number


@pytest.mark.usefixtures("stores")
async def test_requests_that_make_no_sense_are_refused_by_name(bus: Bus) -> None:
    client = await bus.add("odd", store=1000)
    for number, headers in enumerate(
        ({}, {"key": "a b"}, {"key": "a", "revision": "-1"}, {"key": "a", "revision": "٣"})
    ):
        answer = await client.call(2 * number + 1, "$store.put", b"", headers=headers)
        assert words(answer)[2] == "Malformed", headers
    huge = await client.call(99, "$store.put", b"", headers={"key": "a", "revision": "9" * 4000})
    assert words(huge)[2] == "Malformed"
    assert words(await client.call(101, "$store.watch"))[2] == "Malformed"


@pytest.mark.usefixtures("stores")
async def test_the_host_says_whose_store_it_means(bus: Bus) -> None:
    client = await bus.add("notes", store=1000)
    await put(client, 1, "a", b"1")
    host = await bus.join(bus.host, namespace="here")
    assert (await get(host, 1, "a", plugin="notes")).payload == b"1"
    assert words(await get(host, 3, "a")) == ("ERROR", 3, "NoSuchPlugin")


@pytest.mark.usefixtures("stores")
async def test_a_watch_tells_what_changes_as_far_as_credit_goes(bus: Bus) -> None:
    client = await bus.add("notes", store=10_000)
    watcher = await bus.join(bus.folder / "uid-here-notes-0-1.sock")
    watcher.send(Frame(Kind.CALL, 1, "$store.watch", headers={"prefix": "a/"}, flags=wire.STREAM))
    watcher.send(wire.credit(1, 1))
    await watcher.call(3, "$bus.ping")
    await put(client, 1, "b/1", b"other")
    await put(client, 3, "a/1", b"one")
    await put(client, 5, "a/2", b"two")
    await client.call(7, "$store.delete", headers={"key": "a/1"})
    first = await watcher.next()
    assert (first.id, first.payload) == (1, b"one")
    assert first.headers == {"key": "a/1", "revision": "2", "op": "put"}
    await watcher.call(5, "$bus.ping")
    watcher.send(wire.credit(1, 10))
    rest = [await watcher.next() for _ in range(2)]
    assert [(item.headers["key"], item.headers["op"]) for item in rest] == [("a/2", "put"), ("a/1", "delete")]
    watcher.send(Frame(Kind.CANCEL, 1))
    assert words(await watcher.next()) == ("ERROR", 1, "Cancelled")


@pytest.mark.usefixtures("stores")
async def test_a_watcher_that_gives_no_credit_is_dropped_not_kept_up_with(bus: Bus) -> None:
    client = await bus.add("notes", store=100_000)
    watcher = await bus.join(bus.folder / "uid-here-notes-0-1.sock")
    watcher.send(Frame(Kind.CALL, 1, "$store.watch", flags=wire.STREAM))
    await watcher.call(3, "$bus.ping")
    for first in range(1, 2 * 300, 2 * 50):
        client.send(
            *(
                Frame(Kind.CALL, ident, "$store.put", b"", {"key": "a"})
                for ident in range(first, first + 100, 2)
            )
        )
        assert {(await client.next()).kind for _ in range(50)} == {Kind.ANSWER}
    assert words(await watcher.next()) == ("ERROR", 1, "Overloaded")
    assert bus.faults("notes") == {"overloaded": 1}, "it is reported"


@pytest.mark.usefixtures("stores")
async def test_a_watch_ends_when_the_store_is_not_granted_any_more(bus: Bus) -> None:
    client = await bus.add("notes", store=10_000)
    client.send(Frame(Kind.CALL, 1, "$store.watch", flags=wire.STREAM), wire.credit(1, 10))
    await client.call(3, "$bus.ping")
    bus.grant("notes", publish=("a",), store=10_000)
    assert words(await client.call(5, "$bus.ping"))[0] == "ANSWER"
    bus.grant("notes", publish=("a",))
    assert words(await client.next()) == ("ERROR", 1, "NotPermitted")


@pytest.mark.usefixtures("stores")
async def test_watches_of_one_plugin_are_bounded_and_so_is_what_waits_for_them(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "WATCHES_LIMIT", 3)
    monkeypatch.setattr(watches, "_PENDING_BYTES", 2500)
    client = await bus.add("notes", store=100_000)
    for ident in (1, 3, 5, 7):
        client.send(Frame(Kind.CALL, ident, "$store.watch", flags=wire.STREAM))
    assert words(await client.next()) == ("ERROR", 7, "Overloaded")
    client.send(Frame(Kind.CALL, 9, "$store.put", b"x" * 1000, {"key": "a"}))
    told = {words(await client.next()) for _ in range(2)}
    assert told == {("ANSWER", 9, ""), ("ERROR", 5, "Overloaded")}
    assert bus.faults("notes") == {"overloaded": 2}, "it is reported"
    client.send(wire.credit(1, 1), wire.credit(3, 1))
    assert [(await client.next()).payload for _ in range(2)] == [b"x" * 1000] * 2
    client.send(Frame(Kind.CALL, 11, "$store.put", b"y" * 1000, {"key": "a"}))
    assert words(await client.next()) == ("ANSWER", 11, "")


@pytest.mark.usefixtures("stores")
async def test_many_requests_at_once_are_bounded_and_each_is_answered(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await bus.add("busy", store=100_000)
    real, synced = os.fdatasync, threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda file: synced.wait(DEADLINE) and real(file))
    client.send(*(Frame(Kind.CALL, 2 * n + 1, "$store.put", b"x", {"key": f"k{n}"}) for n in range(300)))
    refused = [words(await client.next())[2] for _ in range(300 - 64)]
    assert set(refused) == {"Overloaded"}
    assert bus.faults("busy") == {"overloaded": len(refused)}, "each is reported"
    synced.set()
    assert {words(await client.next())[2] for _ in range(64)} == {""}


@pytest.mark.usefixtures("stores")
async def test_an_answer_comes_once_a_change_would_outlive_a_loss_of_power(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, other = await bus.add("notes", store=10_000), await bus.add("other", store=10_000)
    real, synced = os.fdatasync, threading.Event()

    def slowly(file: int) -> None:
        assert synced.wait(DEADLINE)
        real(file)

    monkeypatch.setattr(os, "fdatasync", slowly)
    client.send(Frame(Kind.CALL, 1, "$store.put", b"x", {"key": "a"}))
    assert words(await client.call(3, "$bus.ping")) == ("ANSWER", 3, ""), "the answer to the put came before"
    synced.set()
    assert words(await client.next()) == ("ANSWER", 1, "")

    def fails(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    assert words(await put(client, 5, "b", b"x")) == ("ERROR", 5, "Unavailable")
    assert words(await put(other, 1, "b", b"x")) == ("ERROR", 1, "Unavailable")
    monkeypatch.setattr(os, "fdatasync", real)
    assert words(await put(client, 7, "b", b"y"))[0] == "ANSWER"


async def test_what_was_put_is_there_after_the_broker_is_another(bus: Bus) -> None:
    client = await bus.add("notes", store=1000)
    async with bus.stores():
        await put(client, 1, "a", b"1")
    async with bus.stores():
        assert (await get(client, 3, "a")).payload == b"1"


@pytest.mark.parametrize("keep", [True, False])
async def test_data_of_a_deleted_plugin_is_kept_or_removed_as_it_said(
    bus: Bus, stores: Stores, keep: bool
) -> None:
    client = await bus.add("notes", store=1000, keep_store=keep)
    other = await bus.add("other", store=1000, keep_store=False)
    await put(client, 1, "a", b"1")
    await put(other, 1, "a", b"1")
    await stores.keep({"uid-here-other"})
    assert words(await get(client, 3, "a"))[0] == ("ANSWER" if keep else "ERROR")
    assert words(await get(other, 3, "a"))[0] == "ANSWER"


@pytest.mark.parametrize("keep", [True, False])
async def test_what_a_plugin_says_of_its_data_counts_before_it_asks_for_any(
    bus: Bus, stores: Stores, keep: bool
) -> None:
    client = await bus.add("notes", store=1000, keep_store=not keep)
    await stores.know(bus.members.values())
    await put(client, 1, "a", b"1")
    bus.grant("notes", store=1000, keep_store=keep)
    await stores.know(bus.members.values())
    await stores.keep(set())
    assert words(await get(client, 3, "a"))[0] == ("ANSWER" if keep else "ERROR")


@pytest.mark.usefixtures("stores")
async def test_another_plugin_of_the_same_name_does_not_inherit_what_was_not_kept(bus: Bus) -> None:
    for number, (keep, found) in enumerate(((False, "ERROR"), (True, "ANSWER"))):
        name = f"heir{number}"
        client = await bus.add(name, store=1000, keep_store=keep)
        await put(client, 1, "a", b"1")
        member = bus.members[f"here/{name}"]
        bus.remove(name)
        bus.members[f"here/{name}"] = type(member)("here", name, "another", member.grants)
        bus.broker.update(bus.members.values())
        heir = await bus.join(bus.host, namespace="here")
        assert words(await get(heir, 1, "a", plugin=name))[0] == found
        await heir.close()


@pytest.mark.usefixtures("stores")
@pytest.mark.parametrize("problem", [MemoryError(), ZeroDivisionError()])
async def test_what_goes_wrong_for_one_is_no_end_of_the_store_for_others(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    greedy, other = await bus.add("greedy", store=1000), await bus.add("other", store=1000)

    def fails(*_: object, **__: object) -> int:
        raise problem

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "put", fails)
        assert words(await put(greedy, 1, "a", b"1")) == ("ERROR", 1, "Unavailable")
    assert words(await put(other, 1, "a", b"1"))[0] == "ANSWER"
