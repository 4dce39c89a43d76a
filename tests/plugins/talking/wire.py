"""A client of the bus in fifty lines, for plugins of the tests; it says whatever it is told to."""

import json
import os
import socket
import struct

HEAD = struct.Struct(">IBBBBIIHH")
HELLO, WELCOME, CALL, ANSWER, SUBSCRIBE = 1, 2, 3, 4, 10


def frame(
    kind: int, ident: int, name: str = "", payload: bytes = b"", headers: dict[str, str] | None = None
) -> bytes:
    """Return the bytes of a frame."""
    pairs = b"".join(
        bytes((len(key),)) + key.encode() + len(value).to_bytes(2, "big") + value.encode()
        for key, value in (headers or {}).items()
    )
    if kind == SUBSCRIBE:
        payload = b""
    length = 16 + len(name) + len(pairs) + len(payload)
    head = HEAD.pack(length, kind, 2, 0, 0, ident, 0, len(name), len(pairs))
    return head + name.encode() + pairs + payload


def count(data: bytes) -> tuple[bytes, int]:
    """Return what is left after all whole frames, and how many those are."""
    at = came = 0
    while len(data) - at >= 4:
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        at, came = end, came + 1
    return data[at:], came


class Bus:
    """One connection."""

    def __init__(self, **hello: object) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(os.environ["CRUCIBLE_BUS"])
        self.incoming = self.socket.makefile("rb")
        self.send(HELLO, 0, payload=json.dumps({"wire": [1], **hello}).encode())
        kind, *rest = self.next()
        if kind != WELCOME:
            raise SystemExit(f"not let in: {rest}")

    def send(
        self,
        kind: int,
        ident: int,
        name: str = "",
        payload: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.socket.sendall(frame(kind, ident, name, payload, headers))

    def next(self) -> tuple[int, int, str, dict[str, str], bytes]:
        """Return kind, id, name, headers and payload of the next frame."""
        length, kind, _, _, _, ident, _, name_size, headers_size = HEAD.unpack(self._exactly(20))
        rest = self._exactly(length - 16)
        name, pairs = rest[:name_size].decode(), rest[name_size : name_size + headers_size]
        headers = {}
        while pairs:
            key_size = pairs[0]
            value_size = int.from_bytes(pairs[1 + key_size : 3 + key_size], "big")
            end = 3 + key_size + value_size
            headers[pairs[1 : 1 + key_size].decode()] = pairs[3 + key_size : end].decode()
            pairs = pairs[end:]
        return kind, ident, name, headers, rest[name_size + headers_size :]

    def _exactly(self, size: int) -> bytes:
        data = self.incoming.read(size)
        if len(data) < size:
            raise SystemExit("the bus is gone")
        return data
