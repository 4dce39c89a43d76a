"""The server is killed, certificates are renewed: what ends, what goes on, what is not lost."""

from __future__ import annotations

import asyncio
import os
import ssl
from datetime import timedelta
from typing import TYPE_CHECKING

from backboned import DEADLINE, free_port, until
from raw import Raw, words

from crucible.backbone import server
from crucible.backbone.authority import authority_in, expiry, utc_now
from crucible.backbone.keeper import Keeper
from crucible.backbone.server import ServerPlace
from crucible.bus.credentials import context_of
from crucible.bus.wire import Frame, Kind
from crucible.companions import starting

if TYPE_CHECKING:
    from pathlib import Path

    from backboned import Backbone

    from conftest import Pair
    from crucible.model.backbone import Joining


async def echo(client: Raw) -> None:
    while True:
        frame = await client.next()
        if frame.kind == Kind.CALL:
            client.send(Frame(Kind.ANSWER, frame.id, payload=frame.payload))


async def test_killed_under_load_every_call_ends_typed_and_publishers_and_callers_go_on(pair: Pair) -> None:
    await pair.meet()
    await pair.backbone.make_streams("here")
    tokenizer = await pair.beta.add("tokenizer", "split", "hold")
    notes = await pair.alpha.add("notes", call=("tokenizer.*",), publish=("notes.>",))
    await until(lambda: pair.alpha.sees("beta", "tokenizer"))
    held = [Frame(Kind.CALL, ident, "tokenizer.hold", b"x" * 2000) for ident in range(1, 121, 2)]
    notes.send(*held)
    for _ in held:
        assert (await tokenizer.next()).name == "hold"
    pair.backbone.kill()
    ended = [await notes.next() for _ in held]
    assert {(frame.kind, frame.name) for frame in ended} == {(Kind.ERROR, "Unavailable")}
    assert {frame.id for frame in ended} == {frame.id for frame in held}
    cancelled = [await tokenizer.next() for _ in held]
    assert {frame.kind for frame in cancelled} == {Kind.CANCEL}
    answer = await notes.call(201, "tokenizer.split", deadline=20_000)  # at once, not at its deadline
    assert words(answer) == ("ERROR", 201, "NoSuchPlugin")
    answer = await notes.call(203, "$events.put", headers={"subject": "notes.saved"})
    assert words(answer) == ("ERROR", 203, "Unavailable")
    serving = asyncio.create_task(echo(tokenizer))
    await pair.backbone.start()
    await until(lambda: pair.alpha.sees("beta", "tokenizer"))
    assert (await notes.call(205, "tokenizer.split", b"again")).payload == b"again"
    assert words(await notes.call(207, "$events.put", headers={"subject": "notes.saved"})) == (
        "ANSWER",
        207,
        "",
    )
    serving.cancel()


async def test_no_durable_event_that_was_accepted_is_lost_though_the_server_is_killed_twice(
    pair: Pair,
) -> None:
    await pair.meet()
    await pair.backbone.make_streams("here")
    editor = await pair.beta.add("editor", publish=("notes.>",))
    notes = await pair.alpha.add("notes", subscribe=("notes.>",))
    taken: list[bytes] = []
    accepted: list[bytes] = []

    async def take() -> None:
        ident, done = 1, ""
        while True:
            headers = {"pattern": "notes.>", **({"done": done} if done else {})}
            answer = await notes.call(ident, "$events.take", headers=headers, deadline=2000)
            ident, done = ident + 2, answer.headers.get("sequence", "")
            if answer.kind == Kind.ANSWER:
                taken.append(answer.payload)
            elif answer.name == "Unavailable":
                await asyncio.sleep(0.05)

    async def put(total: int) -> None:
        ident = 1
        for number in range(total):
            while True:  # a publisher that is told no tries again: the event may be there twice then
                payload = b"%d" % number
                headers = {"subject": "notes.saved"}
                answer = await editor.call(ident, "$events.put", payload, headers=headers, deadline=3000)
                ident += 2
                if answer.kind == Kind.ANSWER:
                    accepted.append(payload)
                    break
                assert answer.name in {"Unavailable", "DeadlineExceeded"}
                await asyncio.sleep(0.02)

    taking = asyncio.create_task(take())
    await until(lambda: pair.alpha.far.durable._consumers)
    putting = asyncio.create_task(put(300))
    for share in (50, 150):
        await until(lambda share=share: len(accepted) >= share)
        pair.backbone.kill()
        await pair.backbone.start()
    await putting
    await until(lambda: set(accepted) <= set(taken))
    assert len(set(taken)) == 300
    taking.cancel()


async def test_new_certificates_are_taken_on_without_ending_a_connection(pair: Pair) -> None:
    await pair.meet()
    tokenizer = await pair.beta.add("tokenizer", "split")
    notes = await pair.alpha.add("notes", call=("tokenizer.split",))
    await until(lambda: pair.alpha.sees("beta", "tokenizer"))
    serving = asyncio.create_task(echo(tokenizer))
    before = (pair.alpha.far.nats, pair.beta.far.nats)
    ident = 1

    async def keep_calling() -> None:
        nonlocal ident
        while True:
            answer = await notes.call(ident, "tokenizer.split", b"x")
            assert words(answer) == ("ANSWER", ident, "")
            ident += 2

    calling = asyncio.create_task(keep_calling())
    old = pair.backbone.certificate.certificate
    for _ in range(3):
        at = ident
        pair.backbone.certificate = pair.backbone.authority.server(["127.0.0.1"], utc_now())
        pair.backbone.reload()
        pair.alpha.far.become(pair.backbone.joining("alpha"))
        pair.beta.far.become(pair.backbone.joining("beta"))
        wanted = pair.backbone.certificate.certificate
        async with asyncio.timeout(30):
            while await _shown(pair) != wanted:
                await asyncio.sleep(0.05)
        await until(lambda at=at: ident > at + 20)
    assert wanted != old
    assert expiry(wanted) is not None
    assert not calling.done()
    calling.cancel()
    serving.cancel()
    assert (pair.alpha.far.nats, pair.beta.far.nats) == before


async def test_a_server_that_no_settings_ask_for_any_more_is_ended(backbone: Backbone) -> None:
    told: list[object] = []
    await Keeper(None, backbone.place, told.append).keep()
    assert told == [None]
    assert server.reach(backbone.place) is None
    assert backbone.held is not None
    assert await starting.gone(backbone.held, DEADLINE)
    os.close(backbone.held)
    backbone.held = None


async def test_a_certificate_that_ends_soon_is_made_anew_and_the_server_shows_it(tmp_path: Path) -> None:
    file, place = tmp_path / "backbone.yaml", ServerPlace(tmp_path / "backbone", tmp_path.name)
    port = free_port()
    file.write_text(f"machine: alpha\nlisten: 127.0.0.1:{port}\n")
    told: list[Joining] = []
    keeper = Keeper(file, place, lambda joining: told.append(joining) if joining else None)
    try:
        await keeper._turn()
        authority, now = authority_in(place.folder, utc_now()), utc_now()
        held = keeper._held
        kept = place.folder / "server.crt"
        before = kept.read_text()
        await keeper._turn()
        assert kept.read_text() == before  # good for a while yet
        ending = authority.server(["127.0.0.1"], now - timedelta(days=70), timedelta(days=90))
        kept.write_text(ending.certificate)
        (place.folder / "server.key").write_text(ending.key)
        await keeper._turn()
        after = kept.read_text()
        assert after not in {before, ending.certificate}
        assert keeper._held == held  # the same process
        context = context_of(told[-1])
        async with asyncio.timeout(DEADLINE):
            while await _shown_at(port, context) != after:
                await asyncio.sleep(0.05)
    finally:
        await keeper._end()


async def _shown(pair: Pair) -> str:
    """Return which certificate the server shows to whoever connects now."""
    return await _shown_at(pair.backbone.port, context_of(pair.backbone.joining("gamma")))


async def _shown_at(port: int, context: ssl.SSLContext) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    assert reader is not None
    return ssl.DER_cert_to_PEM_cert(found)


async def test_a_machine_that_comes_back_is_not_taken_for_the_one_that_left(pair: Pair) -> None:
    await pair.meet()
    tokenizer = await pair.beta.add("tokenizer", "split")
    notes = await pair.alpha.add("notes", call=("tokenizer.split",))
    await until(lambda: pair.alpha.sees("beta", "tokenizer"))
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split"))
    asked = await tokenizer.next()
    assert pair.beta.far.nats is not None
    pair.beta.far.nats.close("a test ends it")
    assert words(await tokenizer.next()) == ("CANCEL", asked.id, "")
    assert words(await notes.next()) == ("ERROR", 1, "Unavailable")
    await until(lambda: pair.alpha.sees("beta", "tokenizer"))
    notes.send(Frame(Kind.CALL, 3, "tokenizer.split"))
    asked = await tokenizer.next()
    tokenizer.send(Frame(Kind.ANSWER, asked.id))
    assert words(await notes.next()) == ("ANSWER", 3, "")


async def test_a_machine_that_is_not_heard_of_any_more_is_given_up(pair: Pair) -> None:
    await pair.meet()
    tokenizer = await pair.beta.add("tokenizer", "split")
    notes = await pair.alpha.add("notes", call=("tokenizer.split",))
    await until(lambda: pair.alpha.sees("beta", "tokenizer"))
    notes.send(Frame(Kind.CALL, 1, "tokenizer.split", deadline=60_000))
    await tokenizer.next()
    pair.alpha.far._peers["beta"].heard_at -= 3600  # as though its last word were an hour old
    assert pair.beta.far.nats is not None
    pair.beta.far.nats._transport.pause_reading()  # type: ignore[union-attr]
    answer = await notes.next()
    assert (words(answer)) == ("ERROR", 1, "Unavailable")
