"""What the kernel is told of a connection whose other side may be gone."""

from __future__ import annotations

import socket

from crucible.bus.alive import watch


def test_silence_is_asked_about_and_ended_after_all_the_questions() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as one:
        watch(one, 15, 5, 3)
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        told = [
            one.getsockopt(socket.IPPROTO_TCP, option)
            for option in (
                socket.TCP_KEEPIDLE,
                socket.TCP_KEEPINTVL,
                socket.TCP_KEEPCNT,
                socket.TCP_USER_TIMEOUT,
            )
        ]
    assert told == [15, 5, 3, 30_000]
