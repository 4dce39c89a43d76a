"""Passes that end soon are renewed over the backbone, by keepers as ``crucible up`` has them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from backboned import DEADLINE, Joined, free_port, until
from raw import Raw, words

from crucible.backbone import keeper as keeping
from crucible.backbone import renewal
from crucible.backbone.authority import authority_in, expiry, identity_of, is_fresh, utc_now
from crucible.backbone.keeper import Keeper, invite
from crucible.backbone.machines import Machine, Machines, fresh_token
from crucible.backbone.server import ServerPlace
from crucible.backbone.settings import pass_text, read_pass
from crucible.bus import nats
from crucible.bus.credentials import context_of
from crucible.bus.wire import Frame, Kind
from crucible.core import backbone
from crucible.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from crucible.backbone.authority import Authority
    from crucible.model.backbone import Joining

DAY = timedelta(days=1)


class Two:
    """Machine alpha has the server, beta a pass of which less than a third is left."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keeping, "LOOK", 0.1)
        monkeypatch.setattr(renewal, "AGAIN", 0.0)
        self.alpha, self.beta = Joined("alpha", folder / "alpha"), Joined("beta", folder / "beta")
        self.port = free_port()
        share = "{machines: ['*'], call: ['echo.*']}"
        (folder / "alpha.yaml").write_text(
            f"machine: alpha\nlisten: 127.0.0.1:{self.port}\nshare: {{here: {share}}}\n"
        )
        (folder / "beta.yaml").write_text(f"pass: beta.pass\nshare: {{here: {share}}}\n")
        self.file = folder / "beta.pass"
        self.place = ServerPlace(folder / "backbone", folder.name)
        self.keepers = [
            Keeper(folder / "alpha.yaml", self.place, self.alpha.far.become),
            Keeper(folder / "beta.yaml", ServerPlace(folder / "none", "none"), self.beta.far.become),
        ]
        self.tasks: list[asyncio.Task[None]] = []

    @property
    def authority(self) -> Authority:
        return authority_in(self.place.folder, utc_now())

    async def start(self, life: timedelta = DAY) -> None:
        self.tasks.append(asyncio.create_task(self.keepers[0].keep()))
        await until(lambda: self.alpha.far.nats is not None)
        beta = Machine("beta", fresh_token(), ("here",), "")
        joining = invite(self.place.folder, beta, life / DAY, utc_now() - 0.8 * life)
        self.file.write_text(pass_text(joining))
        async with asyncio.timeout(DEADLINE):
            while not await is_let_in(joining):
                await asyncio.sleep(0.02)

    async def join(self) -> None:
        self.tasks.append(asyncio.create_task(self.keepers[1].keep()))
        await until(lambda: self.beta.far.nats is not None)

    def shown(self) -> str:
        return read_pass(self.file).certificate

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await Raw.hang_up()
        await asyncio.gather(self.alpha.close(), self.beta.close())
        await self.keepers[0]._end()


async def is_let_in(joining: Joining) -> bool:
    """Say whether the server knows a machine already."""
    try:
        made = await nats.connect("127.0.0.1", joining.port, context_of(joining), "beta", lambda _: None)
    except Unavailable:
        return False
    made.close()
    return True


@pytest.fixture
async def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Two]:
    made = Two(tmp_path, monkeypatch)
    yield made
    await made.close()


async def echo(client: Raw) -> None:
    while True:
        frame = await client.next()
        if frame.kind == Kind.CALL:
            client.send(Frame(Kind.ANSWER, frame.id, payload=frame.payload))


async def test_no_call_fails_while_every_certificate_is_renewed(two: Two) -> None:
    await two.start()
    ended = two.shown()
    await two.join()
    serving = asyncio.create_task(echo(await two.alpha.add("echo", "say")))
    asks = await two.beta.add("asks", call=("echo.*",))
    await until(lambda: two.beta.sees("alpha", "echo"))
    calls = 0

    async def keep_calling() -> None:
        nonlocal calls
        for ident in range(1, 2**31, 2):
            answer = await asks.call(ident, "echo.say", b"x")
            assert words(answer) == ("ANSWER", ident, ""), answer.payload
            calls += 1

    calling = asyncio.create_task(keep_calling())
    connections = (two.alpha.far.nats, two.beta.far.nats)
    for _ in range(2):
        await until(lambda: is_fresh(two.shown(), utc_now()))
        await until(lambda: two.beta.far._joining.certificate == two.shown())  # type: ignore[union-attr]
        assert identity_of(two.shown()) == identity_of(ended)
        assert two.shown() != ended
        at = calls
        await until(lambda at=at: calls > at + 20)
        ended = two.shown()
        old = two.authority.machine(identity_of(ended), utc_now() - 0.8 * DAY, DAY)
        two.file.write_text(pass_text(joining_with(two, old.certificate, old.key)))
    assert not calling.done(), calling.exception()
    assert (two.alpha.far.nats, two.beta.far.nats) == connections, "a connection was cut"
    await until(lambda: two.beta.far._joining.certificate == two.shown())  # type: ignore[union-attr]
    calling.cancel()
    assert connections[1] is not None
    connections[1].close("to see whether the new certificate lets it in")
    await until(lambda: two.beta.far.nats not in {None, connections[1]})
    assert Machines(two.place.folder).all()["beta"].until > utc_now().strftime("%Y-%m-%dT%H:%M:%SZ")
    serving.cancel()


def joining_with(two: Two, certificate: str, key: str) -> Joining:
    found = read_pass(two.file)
    return replace(found, certificate=certificate, key=key)


async def test_a_pass_that_was_short_stays_short_and_its_key_never_leaves_the_machine(two: Two) -> None:
    life = timedelta(minutes=30)
    await two.start(life)
    before = read_pass(two.file)
    made = await renewal.renew(before)
    assert made.fits()
    assert made.key != before.key
    until_ = expiry(made.certificate)
    assert until_ is not None
    assert timedelta(minutes=29) < until_ - utc_now() < life


async def test_who_may_not_have_a_new_certificate_gets_none_and_is_told_why(two: Two) -> None:
    await two.start()
    good = read_pass(two.file)
    other = two.authority.machine("beta.0000.backbone.crucible", utc_now() - 0.8 * DAY, DAY)
    fresh = two.authority.machine(identity_of(good.certificate), utc_now(), DAY)
    asked = renewal.request()[1]
    tries = {
        "it is no request": {"request": asked},
        "not its own": {"request": asked, "certificate": other.certificate},
        "good for a while yet": {"request": asked, "certificate": fresh.certificate},
        "no request for a certificate": {"request": "nothing", "certificate": good.certificate},
        "ended": {
            "request": asked,
            "certificate": two.authority.machine(
                identity_of(good.certificate), utc_now() - 2 * DAY, DAY
            ).certificate,
        },
    }
    connection = await nats.connect("127.0.0.1", two.port, context_of(good), "beta", lambda _: None)
    for why, said in tries.items():
        answer = await connection.request(backbone.renew("beta"), json.dumps(said).encode(), DEADLINE)
        assert why in json.loads(answer.payload)["error"], answer.payload
    connection.publish("", 1, backbone.renew("alpha"), b"{}")  # refused by the server: it is not alpha
    await connection.flush()
    connection.close()
    assert "Publish Violation" in (two.place.folder / "log").read_text()


async def test_a_machine_that_is_revoked_meanwhile_is_not_invited_again_by_it(two: Two) -> None:
    await two.start()
    machines = Machines(two.place.folder)
    good, known = read_pass(two.file), machines.all()["beta"]
    said = {"request": renewal.request()[1], "certificate": good.certificate}
    machines.drop("beta")
    with pytest.raises(InvalidInput, match="not invited"):
        renewal.answer(two.authority, machines, "beta", said, utc_now())
    with pytest.raises(InvalidInput, match="not invited any more"):
        machines.extend("beta", known.token, known.until)
    assert machines.all() == {}


async def test_where_nobody_renews_the_pass_stays_and_the_reason_is_told(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two.start()
    monkeypatch.setattr(renewal, "_SECONDS", 0.3)
    before = two.file.read_text()
    two.keepers[0]._clerk.close()
    two.tasks[0].cancel()  # no controller where the server is
    with pytest.raises(Unavailable, match="nobody there does it"):
        await renewal.renew(read_pass(two.file))
    assert two.file.read_text() == before
