"""What comes for whoever asked no more is given back, however many asked since."""

from __future__ import annotations

import asyncio

import virtualclock

from crucible.bus import natswire
from crucible.bus.nats import ALIVE, Nats
from crucible.bus.natswire import Message, Reached
from crucible.bus.turns import Turns


class Written:
    """Takes what a connection writes."""

    def __init__(self) -> None:
        self.said = b""

    def write(self, data: bytes) -> None:
        self.said += data

    def set_write_buffer_limits(self, **_: int) -> None:
        return

    def abort(self) -> None:
        return


def late(sid: int) -> Message:
    return Message("events.a", sid, b"late", f"$JS.ACK.{sid}.x")


def test_what_comes_too_late_is_given_back_however_many_takes_ended_since() -> None:
    async def main() -> None:
        wire, heard = Written(), list[Message]()
        nats = Nats("one", heard.append, Turns(asyncio.get_running_loop()))
        nats.connection_made(wire)  # type: ignore[arg-type]
        for _ in range(1000):
            assert await nats.take("next", b"", 0) is None
        (first, *_, last) = sorted(nats._past)
        for sid in (first, last):
            nats._take(late(sid))
        await asyncio.sleep(0)
        for sid in (first, last):
            assert natswire.publish(f"$JS.ACK.{sid}.x", b"-NAK") in wire.said
        assert heard == []
        nats.close()

    virtualclock.run(main())


def test_ended_takes_are_forgotten_once_nothing_can_come_for_them() -> None:
    async def main() -> None:
        wire, heard = Written(), list[Message]()
        nats = Nats("one", heard.append, Turns(asyncio.get_running_loop()))
        nats.connection_made(wire)  # type: ignore[arg-type]
        for _ in range(3):
            assert await nats.take("next", b"", 0) is None
        nats._welcome.set_result(None)
        nats._look()
        assert await nats.take("next", b"", 0) is None
        assert len(nats._past) == 4
        nats._take(Reached())  # the answer to what was asked before the fourth ended
        await asyncio.sleep(0)
        assert len(nats._past) == 1
        await asyncio.sleep(1.5 * ALIVE)
        nats._take(Reached())
        await asyncio.sleep(0)
        assert nats._past == set()
        nats.close()

    virtualclock.run(main())


def test_what_comes_after_the_take_was_given_up_in_the_same_turn_is_given_back() -> None:
    async def main() -> None:
        wire, heard = Written(), list[Message]()
        nats = Nats("one", heard.append, Turns(asyncio.get_running_loop()))
        nats.connection_made(wire)  # type: ignore[arg-type]
        taking = asyncio.ensure_future(nats.take("next", b"", 60))
        await asyncio.sleep(0)
        (sid,) = nats._taken
        taking.cancel()
        nats._taken[sid].cancel()
        nats._take(late(sid))
        await asyncio.wait({taking})
        await asyncio.sleep(0)
        assert natswire.publish(f"$JS.ACK.{sid}.x", b"-NAK") in wire.said
        assert heard == []
        nats.close()

    virtualclock.run(main())
