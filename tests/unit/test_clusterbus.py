"""The broker of a cluster: what it takes from Plugins, and whom it tells who vouches for it."""

from __future__ import annotations

import asyncio
import copy
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from crucible import vouching
from crucible.backbone.authority import fresh_authority, signed_by, utc_now
from crucible.bus.ledger import Fault
from crucible.bus.roster import Roster
from crucible.clusterbus import BrokerOptions, Hub, figures, outsiders_of
from crucible.errors import InvalidInput
from crucible.model import names
from crucible.model.bus import HOST
from crucible.runtimes.kubernetes import marks
from crucible.serving import Serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crucible.backbone.authority import Authority

DEADLINE = 30.0


class Client:
    """An API server that takes what is applied, but for some namespaces."""

    def __init__(self, *full: str) -> None:
        self.full = set(full)
        self.applied: dict[str, dict[str, Any]] = {}
        self.tries: list[str] = []
        self.events: list[tuple[str, str]] = []

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert path == "/api/v1/namespaces/a/events"
        self.events.append((body["reason"], body["message"]))
        return body

    async def apply(self, path: str, body: dict[str, Any], manager: str) -> tuple[bool, dict[str, Any]]:
        assert manager == "crucible-broker"
        assert path == f"/api/v1/namespaces/{path.split('/')[4]}/configmaps/{body['metadata']['name']}"
        self.tries.append(path)
        if path.split("/")[4] in self.full:
            raise InvalidInput("exceeded quota")
        self.applied[path] = body
        return True, body


def plugin(name: str, namespace: str = "a", **bus: Any) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}"},
        "spec": {
            "type": "python",
            "version": "1.0.0",
            "source": {"inline": {"main.py": "pass"}},
            "entrypoint": ["main.py"],
            "capabilities": {"bus": bus},
        },
    }


def hub(*full: str) -> tuple[Hub, Client]:
    client: Any = Client(*full)
    return Hub(client, BrokerOptions(Serving())), client


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.002)


async def test_it_knows_of_each_plugin_what_its_manifest_grants_and_forgets_who_is_gone() -> None:
    here, _ = hub()
    before = plugin("one", call=["two.m"])
    here.told(None, before)
    seat = here.broker.roster.find("a", "one")
    assert seat is not None
    assert (seat.may_call("two.m"), seat.may_call("two.n")) == (True, False)
    after = plugin("one", publish=["x.y"])
    here.told(before, after)
    assert (seat.may_call("two.m"), seat.may_publish("x.y")) == (False, True)
    broken = copy.deepcopy(after)
    broken["spec"]["capabilities"]["bus"]["publish"] = ["crucible.events"]
    here.told(after, broken)
    assert not seat.may_publish("x.y"), "what is refused may do nothing"
    going = copy.deepcopy(after)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    here.told(broken, going)
    assert not seat.may_publish("x.y")
    another = plugin("one")
    another["metadata"]["uid"] = "another"
    here.told(going, another)
    found = here.broker.roster.find("a", "one")
    assert found is not None
    assert found is not seat, "one of the same name is somebody else"
    here.told(another, None)
    assert here.broker.roster.find("a", "one") is None


async def test_namespaces_with_plugins_on_the_bus_are_told_and_one_that_cannot_be_is_no_matter_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vouching, "RETRY", 0.01)
    here, client = hub("full")
    silent = plugin("silent", "quiet")
    del silent["spec"]["capabilities"]
    for each in (plugin("one"), plugin("two", "full"), plugin("three", "z"), silent):
        here.told(None, each)
    keeping = asyncio.create_task(here.vouching.keep())
    try:
        await until(lambda: len(client.applied) == 2 and here.vouching.untold == 1)
        texts = {one["data"][marks.AUTHORITY_KEY] for one in client.applied.values()}
        assert {path.split("/")[4] for path in client.applied} == {"a", "z"}
        assert len(texts) == 1
        assert "PRIVATE" not in texts.pop()
        assert "crucible_bus_untold 1" in figures(here)
        client.full.clear()
        await until(lambda: not here.vouching.untold)
        here.told(None, plugin("late", "later"))
        await until(lambda: any("/later/" in path for path in client.applied))
        assert not any("/quiet/" in path for path in client.tries)
        client.applied.clear()
        here.told(plugin("late", "later"), None)
        here.told(None, plugin("late", "later"))
        await until(lambda: any("/later/" in path for path in client.applied))  # it may have been made anew
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


def test_the_certificate_is_renewed_under_the_same_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    own = vouching.Own()
    first = own.read()
    assert signed_by(first.shown.certificate, first.authority)
    assert own.read() == first
    now = utc_now()
    monkeypatch.setattr(vouching, "utc_now", lambda: now + timedelta(days=70))
    second = own.read()
    assert second.shown != first.shown
    assert signed_by(second.shown.certificate, first.authority)
    assert "Issued()" in repr(second), "no key in what is printed"
    assert "key" not in repr(own._authority)


async def test_a_mounted_certificate_is_read_anew_and_one_that_cannot_be_used_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vouching, "LOOK", 0.01)
    authority, other = (fresh_authority(name, utc_now()) for name in ("one", "two"))

    def mount(signer: Authority, *names: str) -> None:
        issued = signer.server(names, utc_now())
        texts = {
            "ca.crt": signer.certificate + issued.key,
            "tls.crt": issued.certificate,
            "tls.key": issued.key,
        }
        for name, text in texts.items():
            (tmp_path / name).write_text(text)

    mount(authority, "wrong")
    client: Any = Client()
    with pytest.raises(InvalidInput, match="not made out to the DNS name 'bus'"):
        Hub(client, BrokerOptions(Serving(), certificates=tmp_path))
    mount(authority, "bus")
    here = Hub(client, BrokerOptions(Serving(), certificates=tmp_path))
    here.told(None, plugin("one"))
    keeping = asyncio.create_task(here.vouching.keep())
    try:
        await until(lambda: client.applied)
        (told,) = client.applied.values()
        assert told["data"][marks.AUTHORITY_KEY] == authority.certificate, "and no key that lies beside it"
        (tmp_path / "tls.crt").write_text("nothing")
        await until(lambda: "holds no certificates" in here.vouching.problem)
        mount(other, "bus")
        await until(lambda: not here.vouching.problem)

        def told_of_the_other() -> bool:
            (said,) = client.applied.values()
            return bool(said["data"][marks.AUTHORITY_KEY] == other.certificate)

        await until(told_of_the_other)
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


async def test_people_hear_what_a_plugin_may_not_and_does_too_much_of_and_not_over_and_over() -> None:
    here, client = hub()
    here.told(None, plugin("one"))
    ledger = here.broker.ledger
    for _ in range(2):
        ledger.fault("a", "one", Fault.REFUSED, "call two.m")
    await until(lambda: client.events)
    for detail in ("no HELLO", "no frame"):
        ledger.fault("a", "one", Fault.MALFORMED, detail)
        ledger.fault("a", "one", Fault.CONNECTIONS, detail)
    ledger.fault("a", "stranger", Fault.MALFORMED, "of nobody known")
    await until(lambda: not here._telling)
    (denied, why), (limited, what) = client.events
    assert (denied, limited) == ("BusDenied", "BusLimited")
    assert "add 'two.m' to spec.capabilities.bus.call" in why
    assert "no HELLO" in what
    assert "two.m" not in what, "that is said already"


async def test_it_is_not_ready_before_it_knows_who_is_there() -> None:
    here, _ = hub()
    assert here.unready()
    assert not here.ill()


def test_people_outside_may_act_nowhere_unless_it_is_said_and_never_where_nobody_is_served() -> None:
    operator = "crucible-system/crucible"

    def may(*callers: str, served: tuple[str, ...] = (), operator: str = operator) -> set[str]:
        return set(
            outsiders_of(BrokerOptions(Serving(namespaces=served), callers=callers, operator=operator))
        )

    assert may() == may(operator="") == may(served=("a",)) == set()
    assert may("a", "b") == {"a", "b"}
    assert may("a", served=("a", "b")) == {"a"}
    assert may("*") == {"*"}
    assert may("*", served=("a", "b")) == {"a", "b"}
    with pytest.raises(InvalidInput, match="--callers c: plugins of that namespace are not served"):
        may("a", "c", served=("a", "b"))
    with pytest.raises(InvalidInput, match="say --operator too"):
        may("a", operator="")


async def test_an_outsiders_seat_is_there_where_it_may_act_and_goes_with_it() -> None:
    client: Any = Client()
    roster = Hub(client, BrokerOptions(Serving(), callers=("a",), operator="s/c")).broker.roster
    assert not roster.outsiders_may_not("a")
    assert "bus.callers.namespaces" in roster.outsiders_may_not("b")
    assert "no methods" in roster.outsiders_may_not("a", {"open"})
    speaker = roster.speaker("a", HOST)
    assert speaker is not None
    assert speaker.may_call("one.m")
    assert roster.speaker("b", HOST) is None
    assert roster.speaker("a", "one") is None, "a plugin that nobody knows"
    seat = roster.host("a")
    roster.left(seat)
    assert roster.find("a", HOST) is None
    assert Roster().speaker("a", HOST) is None, "of a machine nobody is another's host application"
    shut, _ = hub()
    assert shut.broker.roster.speaker("a", HOST) is None
