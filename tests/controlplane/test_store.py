"""What is kept, how it is kept, and what happens when it cannot be."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from probe import APPLY, CONFIGMAPS, PLUGINS, SECRETS, Probe, configmap, plugin, probing, until

from crucible.control.apiserver import ApiServer, ServerSettings, database, export_state, restore_backup
from crucible.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    return ServerSettings(state_dir=tmp_path / "state")


def client(server: ApiServer) -> AbstractAsyncContextManager[Probe]:
    return probing(server.url, server.ca, server.token)


async def test_everything_survives_a_restart(settings: ServerSettings, crd: dict[str, Any]) -> None:
    async with ApiServer(settings, crds=[crd]) as server, client(server) as probe:
        before = (await probe.post(PLUGINS, plugin("a"))).body
        revision = (await probe.get(PLUGINS)).revision
    async with ApiServer(settings, crds=[crd]) as server, client(server) as probe:
        assert (await probe.get(f"{PLUGINS}/a")).body == before
        assert (await probe.get(PLUGINS)).revision >= revision
        async with probe.watch(f"{PLUGINS}?watch=1&resourceVersion={revision - 1}") as watch:
            assert (await watch.next())["object"] == before


async def test_a_damaged_database_is_told_in_words(settings: ServerSettings) -> None:
    async with ApiServer(settings):
        pass
    file = settings.state_dir / "control.db"
    file.write_bytes(b"SQLite format 3\x00" + b"\xff" * 8000)
    with pytest.raises(InvalidInput, match=r"damaged.*crucible restore"):
        async with ApiServer(settings):
            raise AssertionError("opened a damaged database")


async def test_a_locked_database_is_told_in_words(settings: ServerSettings) -> None:
    async with ApiServer(settings):
        pass
    with sqlite3.connect(settings.state_dir / "control.db", isolation_level=None) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable, match="in use by another program"):
            async with ApiServer(settings):
                raise AssertionError("opened a locked database")
    other.close()


async def test_a_newer_format_is_not_touched(settings: ServerSettings) -> None:
    async with ApiServer(settings):
        pass
    with sqlite3.connect(settings.state_dir / "control.db") as link:
        link.execute("PRAGMA user_version=99")
    link.close()
    with pytest.raises(InvalidInput, match="newer release"):
        async with ApiServer(settings):
            raise AssertionError("opened a newer format")


async def test_secrets_are_sealed_with_the_users_key(tmp_path: Path) -> None:
    key = tmp_path / "key"
    settings = ServerSettings(state_dir=tmp_path / "state", secrets_key=key)
    async with ApiServer(settings) as server, client(server) as probe:
        await probe.post(SECRETS, {"metadata": {"name": "s"}, "stringData": {"k": "find-this-text"}})
        await probe.post(CONFIGMAPS, configmap("c", k="plain-text"))
    stored = b"".join(path.read_bytes() for path in settings.state_dir.glob("control.db*"))
    assert b"plain-text" in stored
    assert b"ZmluZC10aGlzLXRleHQ" not in stored
    async with ApiServer(settings) as server, client(server) as probe:
        assert (await probe.get(f"{SECRETS}/s")).body["data"] == {"k": "ZmluZC10aGlzLXRleHQ="}
    key.write_bytes(b"x" * 32)
    with pytest.raises(InvalidInput, match="not the key"):
        async with ApiServer(settings):
            raise AssertionError("opened with the wrong key")


async def test_a_backup_is_restored_and_revisions_do_not_go_back(
    settings: ServerSettings, tmp_path: Path, crd: dict[str, Any]
) -> None:
    copy = tmp_path / "copy.db"
    async with ApiServer(settings, crds=[crd]) as server, client(server) as probe:
        await probe.post(PLUGINS, plugin("a"))
        await server.backup(copy)
        await probe.delete(f"{PLUGINS}/a")
        with pytest.raises(Exception, match="in use by process"):
            restore_backup(settings.state_dir, copy)
    restore_backup(settings.state_dir, copy)
    async with ApiServer(settings, crds=[crd]) as server, client(server) as probe:
        assert (await probe.get(f"{PLUGINS}/a")).code == 200
    with pytest.raises(InvalidInput, match="not a backup"):
        restore_backup(settings.state_dir, settings.state_dir / "token")


async def test_export_is_desired_state_that_can_be_applied_again(server: ApiServer, probe: Probe) -> None:
    await probe.post(PLUGINS, plugin("a", {"labels": {"l": "1"}}))
    await probe.patch(f"{PLUGINS}/a/status", {"status": {"phase": "Up"}})
    exported = export_state(server)
    assert [item["kind"] for item in exported] == ["CustomResourceDefinition", "Plugin"]
    assert "status" not in exported[1]
    assert set(exported[1]["metadata"]) == {"name", "namespace", "labels"}


async def test_pages_show_the_moment_of_the_first(probe: Probe) -> None:
    for name in ("a", "b", "c", "d"):
        await probe.post(PLUGINS, plugin(name))
    first = await probe.get(f"{PLUGINS}?limit=2")
    await probe.delete(f"{PLUGINS}/c")
    await probe.post(PLUGINS, plugin("bb"))
    await probe.patch(f"{PLUGINS}/d", {"spec": {"image": "later"}})
    second = await probe.get(f"{PLUGINS}?limit=2&continue={first.body['metadata']['continue']}")
    assert [*first.names, *second.names] == ["a", "b", "c", "d"]
    assert second.body["items"][1]["spec"]["image"] == "x"
    assert second.revision == first.revision


async def test_an_exact_list_shows_that_moment_or_is_expired(tmp_path: Path, crd: dict[str, Any]) -> None:
    settings = ServerSettings(state_dir=tmp_path / "state", history_events=10)
    async with ApiServer(settings, crds=[crd]) as server, client(server) as probe:
        first = await probe.post(PLUGINS, plugin("a"))
        await probe.post(PLUGINS, plugin("b"))
        await probe.patch(f"{PLUGINS}/a", {"spec": {"image": "later"}})
        newest = (await probe.get(PLUGINS)).revision
        exact = f"{PLUGINS}?resourceVersionMatch=Exact&resourceVersion="
        present = await probe.get(f"{exact}{newest}")
        assert (present.names, present.revision) == (["a", "b"], newest)
        past = await probe.get(f"{exact}{first.revision}")
        assert (past.names, past.revision) == (["a"], first.revision)
        assert past.body["items"][0] == first.body
        limited = await probe.get(f"{PLUGINS}?limit=5&resourceVersion={first.revision}")
        assert limited.names == ["a"], "a limit without a match means exactly"
        fresh = await probe.get(f"{PLUGINS}?resourceVersion={first.revision}")
        assert fresh.names == ["a", "b"]
        for at in range(20):
            await probe.patch(f"{PLUGINS}/a", {"spec": {"config": {"at": at}}})
        assert (await probe.get(f"{exact}{first.revision}")).brief == [
            *(410, "Expired", "The resourceVersion for the provided list is too old.")
        ]


@pytest.mark.parametrize(
    ("query", "code", "said"),
    [
        ("resourceVersionMatch=Exact", 422, "is forbidden unless resourceVersion is provided"),
        ("resourceVersionMatch=Exact&resourceVersion=0", 422, '"exact" is forbidden for resourceVersion "0"'),
        (
            "resourceVersionMatch=Roughly&resourceVersion=1",
            422,
            'supported values: "Exact", "NotOlderThan", ""',
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=999999999",
            504,
            "Too large resource version: 999999999",
        ),
        ("continue={}&resourceVersionMatch=Exact", 422, "is forbidden when continue is provided"),
        ("continue={}&resourceVersion=1001", 400, "not allowed when using continue"),
    ],
)
async def test_moments_that_cannot_be_asked_for_are_refused(
    probe: Probe, query: str, code: int, said: str
) -> None:
    for name in ("a", "b"):
        await probe.post(PLUGINS, plugin(name))
    token = (await probe.get(f"{PLUGINS}?limit=1")).body["metadata"]["continue"]
    refused = await probe.get(f"{PLUGINS}?{query.format(token)}")
    assert refused.code == code
    assert said in refused.body["message"]


async def test_pages_and_watches_of_forgotten_moments_are_410(tmp_path: Path, crd: dict[str, Any]) -> None:
    settings = ServerSettings(state_dir=tmp_path / "state", history_events=10)
    async with ApiServer(settings, crds=[crd]) as server, client(server) as probe:
        await probe.post(PLUGINS, plugin("a"))
        await probe.post(PLUGINS, plugin("b"))
        first = await probe.get(f"{PLUGINS}?limit=1")
        for at in range(20):
            await probe.patch(f"{PLUGINS}/a", {"spec": {"config": {"at": at}}})
        late = await probe.get(f"{PLUGINS}?limit=1&continue={first.body['metadata']['continue']}")
        assert (late.code, late.body["reason"]) == (410, "Expired")
        rest = await probe.get(f"{PLUGINS}?limit=1&continue={late.body['metadata']['continue']}")
        assert rest.names == ["b"], "the token of the refusal goes on with the present"
        async with probe.watch(f"{PLUGINS}?watch=1&resourceVersion={first.revision}") as watch:
            error = await watch.next()
        assert (error["type"], error["object"]["code"]) == ("ERROR", 410)


async def test_concurrent_writers_of_one_object_lose_no_change(probe: Probe) -> None:
    await probe.post(PLUGINS, plugin("a"))
    patches = ({"metadata": {"labels": {f"l{at}": "1"}}} for at in range(50))
    await asyncio.gather(*(probe.patch(f"{PLUGINS}/a", patch) for patch in patches))
    assert len((await probe.get(f"{PLUGINS}/a")).body["metadata"]["labels"]) == 50


async def test_old_events_go(settings: ServerSettings) -> None:
    path = "/api/v1/namespaces/default/events"
    event = {"involvedObject": {"kind": "X", "name": "x", "namespace": "default"}, "reason": "R"}
    async with ApiServer(replace(settings, event_ttl=-1)) as server, client(server) as probe:
        await probe.post(path, {**event, "metadata": {"name": "old"}})
    async with ApiServer(replace(settings, event_ttl=-1)) as server, client(server) as probe:
        await probe.until(path, lambda reply: reply.body["items"] == [])


async def test_of_too_many_events_the_oldest_go_of_whoever_has_most(settings: ServerSettings) -> None:
    path = "/api/v1/namespaces/default/events"
    async with ApiServer(settings) as server, client(server) as probe:
        for name, count in (("quiet", 3), ("noisy", 20)):
            about = {"kind": "Plugin", "name": name, "namespace": "default", "uid": name}
            for at in range(count):
                event = {"involvedObject": about, "reason": "R", "metadata": {"name": f"{name}.{at:02}"}}
                await probe.post(path, event)
    async with ApiServer(replace(settings, most_events=10)) as server, client(server) as probe:
        await probe.until(path, lambda reply: len(reply.names) <= 10)
        kept = (await probe.get(path)).names
    assert kept == [f"noisy.{at}" for at in range(15, 20)] + ["quiet.00", "quiet.01", "quiet.02"]


async def test_too_many_requests_at_once_are_told_to_come_back(settings: ServerSettings) -> None:
    async with ApiServer(replace(settings, max_requests=1)) as server, client(server) as probe:
        async with probe.watch(f"{CONFIGMAPS}?watch=1") as watch:
            assert watch.code == 200
            refused = await probe.get("/version")
        assert (refused.code, refused.headers["Retry-After"]) == (429, "1")
        await probe.until("/version", lambda reply: reply.code == 200)


async def test_the_file_shrinks_again_after_much_came_and_went(
    settings: ServerSettings, crd: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PRUNE_EVERY", 20)
    small = replace(settings, history_events=40)
    file = settings.state_dir / "control.db"
    async with ApiServer(small, crds=[crd]) as server, client(server) as probe:
        first = await probe.get(CONFIGMAPS)
        for at in range(100):
            assert (await probe.post(CONFIGMAPS, configmap(f"c{at}", k="x" * 100_000))).code == 201
        assert file.stat().st_size > 10_000_000
        for at in range(100):
            await probe.delete(f"{CONFIGMAPS}/c{at}")
        for at in range(100):
            await probe.post(CONFIGMAPS, configmap(f"small{at}"))

        async def is_small() -> bool:
            # What is used is 0.3 MB, 1 MiB is kept free, and the log of writes may be left at its 4 MiB.
            return sum(path.stat().st_size for path in settings.state_dir.glob("control.db*")) < 6_000_000

        await until(is_small)
        async with probe.watch(f"{CONFIGMAPS}?watch=1&resourceVersion={first.revision}") as watch:
            error = await watch.next()
        assert (error["type"], error["object"]["code"], error["object"]["reason"]) == (
            "ERROR",
            410,
            "Expired",
        )
    async with ApiServer(small, crds=[crd]) as server, client(server) as probe:
        assert len((await probe.get(CONFIGMAPS)).body["items"]) == 100


async def test_history_of_large_objects_is_pruned_by_its_bytes(
    settings: ServerSettings, crd: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PRUNE_BYTES", 2**21)
    small = replace(settings, history_bytes=1_000_000)
    async with ApiServer(small, crds=[crd]) as server, client(server) as probe:
        await probe.post(CONFIGMAPS, configmap("c"))
        for at in range(20):  # each leaves 2 MB in the log
            await probe.patch(f"{CONFIGMAPS}/c", {"data": {"k": f"{at}" + "x" * 1_000_000}})
        assert (settings.state_dir / "control.db").stat().st_size < 20_000_000


async def test_history_is_pruned_by_servers_that_each_write_little(
    settings: ServerSettings, crd: dict[str, Any]
) -> None:
    for _ in range(4):
        async with (
            ApiServer(replace(settings, history_events=10), crds=[crd]) as server,
            client(server) as probe,
        ):
            for at in range(10):
                await probe.patch(f"{CONFIGMAPS}/c?fieldManager=m", configmap("c", k=str(at)), APPLY)
    with closing(sqlite3.connect(settings.state_dir / "control.db")) as link:
        (kept,) = link.execute("SELECT count(*) FROM log").fetchone()
    assert kept <= 25


async def test_a_database_from_before_pages_were_given_back_is_converted(
    settings: ServerSettings, crd: dict[str, Any]
) -> None:
    file = settings.state_dir / "control.db"
    async with ApiServer(settings, crds=[crd]) as server, client(server) as probe:
        await probe.post(PLUGINS, plugin("a"))
    with closing(sqlite3.connect(file, isolation_level=None)) as link:
        link.execute("PRAGMA auto_vacuum=0")
        link.execute("VACUUM")
        assert link.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    async with ApiServer(settings, crds=[crd]) as server, client(server) as probe:
        assert (await probe.get(f"{PLUGINS}/a")).code == 200
    with closing(sqlite3.connect(file)) as link:
        assert link.execute("PRAGMA auto_vacuum").fetchone() == (database.INCREMENTAL,)
