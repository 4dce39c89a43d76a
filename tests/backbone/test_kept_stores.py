"""Stores of a cluster's plugins: one each, whichever replica it is connected to, exact, and nobody else's."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from backboned import until
from raw import Raw, words

from crucible.bus import kept, mirror, wire
from crucible.bus.bucket import OVERHEAD
from crucible.bus.wire import Frame, Kind
from crucible.model.bus import Grants, Member

if TYPE_CHECKING:
    from backboned import Joined
    from replicas import Replicas


async def put(client: Raw, ident: int, key: str, value: bytes, **headers: str) -> Frame:
    return await client.call(ident, "$store.put", value, headers={"key": key, **headers})


async def get(client: Raw, ident: int, key: str) -> Frame:
    return await client.call(ident, "$store.get", headers={"key": key})


async def listed(client: Raw, ident: int, **headers: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((await client.call(ident, "$store.list", headers=headers)).payload)
    return found


async def two_of(replicas: Replicas, name: str, **grants: object) -> tuple[Raw, Raw]:
    """Return two instances of a plugin, each connected to another replica."""
    one = await replicas.add(replicas.one, name, **grants)
    return one, await Raw.greet(replicas.two.plugin(name, **grants))  # type: ignore[arg-type]


async def test_what_one_replica_kept_another_has_and_revisions_guard_it(replicas: Replicas) -> None:
    one, two = await two_of(replicas, "notes", store=10_000)
    first = await put(one, 1, "a/b=", b"\0one", revision="0")
    assert first.kind == Kind.ANSWER, first
    revision = first.headers["revision"]
    got = await get(two, 1, "a/b=")
    assert (got.payload, got.headers) == (b"\0one", {"revision": revision})
    for client, ident in ((one, 3), (two, 3)):
        conflict = await put(client, ident, "a/b=", b"two", revision="0")
        assert (words(conflict), conflict.headers) == (("ERROR", ident, "Conflict"), {"revision": revision})
    second = await put(two, 5, "a/b=", b"two", revision=revision)
    assert int(second.headers["revision"]) > int(revision)
    assert (await get(one, 5, "a/b=")).payload == b"two"
    await put(one, 7, "a/c", b"")
    found = await listed(two, 7, prefix="a/")
    assert [one["key"] for one in found["keys"]] == ["a/b=", "a/c"]  # type: ignore[attr-defined]
    assert (found["used"], found["size"], found["more"]) == (4 + 3 + 3 + 2 * OVERHEAD, 10_000, False)
    assert (await listed(two, 9, after="a/b="))["keys"][0]["key"] == "a/c"  # type: ignore[index]
    assert (await two.call(11, "$store.delete", headers={"key": "a/b="})).kind == Kind.ANSWER
    assert words(await get(one, 11, "a/b="))[2] == "NotFound"
    assert words(await one.call(13, "$store.delete", headers={"key": "a/b="}))[2] == "NotFound"
    assert words(await put(one, 15, "a", b"x" * 10_000))[2] == "StoreFull"


async def test_a_size_is_held_exactly_though_both_replicas_fill_it_at_once(replicas: Replicas) -> None:
    size = 20 * (3 + 100 + OVERHEAD)
    clients = await two_of(replicas, "greedy", store=size)
    for at, client in enumerate(clients):
        for number in range(20):
            headers = {"key": f"{at}{number:02}"}
            client.send(Frame(Kind.CALL, 2 * number + 1, "$store.put", b"x" * 100, headers, deadline=60_000))
    ended = [await client.next() for client in clients for _ in range(20)]
    assert sorted({words(each)[2] for each in ended}) == ["", "StoreFull"], ended
    assert sum(each.kind == Kind.ANSWER for each in ended) == 20
    found = await listed(clients[0], 101)
    assert found["used"] == size
    assert len(found["keys"]) == 20  # type: ignore[arg-type]


async def test_tenants_do_not_meet_and_nobody_without_a_store_has_one(replicas: Replicas) -> None:
    mine = await replicas.add(replicas.one, "notes", store=1000)
    none = await replicas.add(replicas.one, "other", call=("notes.get",))
    theirs = await Raw.greet(replicas.two.plugin("notes", "there", store=1000))
    assert (await put(mine, 1, "key", b"mine")).kind == Kind.ANSWER
    assert words(await get(theirs, 1, "key"))[2] == "NotFound"
    assert (await put(theirs, 3, "key", b"theirs")).kind == Kind.ANSWER
    assert (await get(mine, 3, "key")).payload == b"mine"
    assert words(await get(none, 1, "key"))[2] == "NotPermitted"
    bad = await mine.call(5, "$store.put", b"", headers={"key": "a.*.>"})
    assert words(bad)[2] == "Malformed"
    assert (await mine.call(7, "$store.put", b"", headers={"key": "there.notes.key"})).kind == Kind.ANSWER
    assert (await get(theirs, 5, "key")).payload == b"theirs"


def again(replica: Joined, born: str, replicas: Replicas, *, keep: bool) -> Member:
    """Make another Plugin of the same name known to one replica."""
    member = Member("here", "notes", f"uid-{born}", Grants(store=10_000, keep_store=keep))
    replicas.stores[replica.name].know(member, born)
    return member


async def test_a_later_plugin_of_the_name_finds_what_was_to_be_kept_and_nothing_else(
    replicas: Replicas,
) -> None:
    one, two = replicas.stores["bus-one"], replicas.stores["bus-two"]
    old = again(replicas.one, "2026-01-01", replicas, keep=True)
    again(replicas.two, "2026-01-01", replicas, keep=True)
    follower = await one._open(old.key)
    await one._claim(follower, old)
    assert await one._append(follower, mirror.token_of("a"), b"\1kept")
    later = again(replicas.two, "2026-02-02", replicas, keep=False)
    there = await two._open(later.key)
    await two._claim(there, later)
    assert [each[0] for each in there.mirror.list("", "", 10).entries] == ["a"]
    # The old one, of which a replica still believes that it is there, is refused, and takes nothing back.
    await one._catch_up(follower)
    with pytest.raises(kept.Refused, match="a later plugin's"):
        await one._claim(follower, old)
    last = again(replicas.one, "2026-03-03", replicas, keep=True)
    await one._claim(follower, last)
    await two._catch_up(there)
    for each in (follower, there):
        assert each.mirror.list("", "", 10).entries == (), "what was not to be kept is gone"
        assert each.mirror.owner is not None
        assert each.mirror.owner.uid == last.uid
    assert await one._last(mirror.subject("here", "notes", mirror.token_of("a"))) is None, "from the disk too"


async def test_what_is_nobodys_is_removed_though_who_was_to_do_it_ended_before(replicas: Replicas) -> None:
    client = await replicas.add(replicas.one, "notes", store=1000)
    assert (await put(client, 1, "a", b"x")).kind == Kind.ANSWER
    stores = replicas.stores["bus-one"]
    follower = stores._followers["here", "notes"]
    void = kept.Owner("", "", keep=False, since=follower.mirror.last + 1)
    assert await stores._append(follower, mirror.OWNER, void.encode())
    assert follower.mirror.used == follower.mirror.memory == 0
    there = replicas.stores["bus-two"]
    assert (await there._open(("here", "notes"))).mirror.used == 0
    assert await there._last(mirror.subject("here", "notes", mirror.token_of("a"))) is None


async def test_what_a_plugin_did_not_want_kept_is_removed_when_it_is_gone_and_noted_at_once(
    replicas: Replicas,
) -> None:
    stores = replicas.stores["bus-one"]
    for name, keep in (("keeps", True), ("leaves", False), ("changes", False)):
        client = await replicas.add(replicas.one, name, store=1000, keep_store=keep)
        assert (await put(client, 1, "a", b"x")).kind == Kind.ANSWER
    member = replicas.one.members["changes"]
    changed = replace(member, grants=replace(member.grants, keep_store=True))
    stores.know(changed, "")
    follower = await stores._open(member.key)
    await until(lambda: follower.mirror.owner is not None and follower.mirror.owner.keep)
    replicas.one.broker.forget({each.uid for each in replicas.one.members.values()})
    asked = []

    async def gone(namespace: str, name: str, uid: str) -> bool:
        asked.append((namespace, name, uid))
        return len(asked) > 1

    await stores.sweep_once(gone)
    assert asked == [("here", "leaves", "uid-here-leaves")]
    there = replicas.stores["bus-two"]
    assert (await there._open(("here", "leaves"))).mirror.used, "only what is gone for sure"
    await stores.sweep_once(gone)
    await there._catch_up(await there._open(("here", "leaves")))
    for name, used in (("keeps", True), ("leaves", False), ("changes", True)):
        assert bool((await there._open(("here", name))).mirror.used) is used
    assert await there._last(mirror.subject("here", "leaves", mirror.token_of("a"))) is None
    await stores.sweep_once(gone)
    assert len(asked) == 2, "what is nobody's is looked at no more"


async def test_watchers_hear_what_changes_through_any_replica(replicas: Replicas) -> None:
    one, two = await two_of(replicas, "notes", store=10_000)
    two.send(
        Frame(Kind.CALL, 1, "$store.watch", headers={"prefix": "a"}, flags=wire.STREAM, deadline=0),
        wire.credit(1, 10),
    )
    await until(lambda: replicas.stores["bus-two"]._watches._watchers)
    await put(one, 1, "b", b"not watched")
    answer = await put(one, 3, "a", b"one")
    item = await two.next()
    assert (item.payload, item.headers) == (
        b"one",
        {"key": "a", "op": "put", "revision": answer.headers["revision"]},
    )
    two.send(Frame(Kind.CALL, 3, "$store.delete", headers={"key": "a"}))
    heard = [await two.next(), await two.next()]
    assert {each.kind for each in heard} == {Kind.ITEM, Kind.ANSWER}
    replicas.server.kill()
    await until(lambda: replicas.one.far.nats is None and replicas.two.far.nats is None)
    ended = await two.next()
    assert words(ended) == ("ERROR", 1, "Unavailable"), "it may have missed something"
    assert words(await put(one, 5, "a", b"x"))[2] == "Unavailable"
    await replicas.server.start()
    await until(lambda: replicas.one.far.nats is not None and replicas.two.far.nats is not None)
    assert (await get(one, 7, "b")).payload == b"not watched"
    assert words(await get(two, 5, "a"))[2] == "NotFound"


async def test_what_says_that_keys_were_deleted_does_not_pile_up(replicas: Replicas) -> None:
    client = await replicas.add(replicas.one, "notes", store=10_000)
    for number in range(0, 40, 4):
        await put(client, number + 1, f"k{number}", b"x")
        await client.call(number + 3, "$store.delete", headers={"key": f"k{number}"})
    stores = replicas.stores["bus-one"]
    words_ = await stores._ask("$JS.API.STREAM.INFO.CRUCIBLE_STORES", {})
    assert words_["state"]["messages"] <= 2, "the owner, and the last"
    follower = stores._followers["here", "notes"]
    assert follower.mirror.memory == follower.mirror.used == 0
