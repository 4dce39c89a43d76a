"""Has the kernel end a connection whose other side is gone without a word."""

from __future__ import annotations

import socket


def watch(connection: socket.socket, idle: int, interval: int, count: int) -> None:
    """Have it asked whether it is there, and ended where it does not say so.

    Args:
        connection: of TCP.
        idle: seconds of silence after which it is asked.
        interval: seconds between two questions.
        count: questions without an answer that end it; what is sent may stay unconfirmed for as long as all
            of this takes.
    """
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, (idle + interval * count) * 1000),
    ):
        connection.setsockopt(level, option, value)
