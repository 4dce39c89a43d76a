"""What a NATS server says, cut anywhere; and what none would say."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crucible.bus import natswire
from crucible.bus.natswire import Asked, BrokenLine, Info, Message, Parser, Reached, Refusal

SAID = (
    b'INFO {"max_payload":1048576}\r\n'
    b"+OK\r\n"
    b"PING\r\n"
    b"PONG\r\n"
    b"MSG a.b 7 5\r\nhe\r\no\r\n"
    b"MSG a.b 7 reply.to 0\r\n\r\n"
    b"HMSG a 8 12 12\r\nNATS/1.0\r\n\r\n\r\n"
    b"HMSG a 8 r 32 34\r\nNATS/1.0 408 Request Timeout\r\n\r\nhi\r\n"
    b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n"
)
MEANT = [
    Info({"max_payload": 1048576}),
    Asked(),
    Reached(),
    Message("a.b", 7, b"he\r\no"),
    Message("a.b", 7, b"", "reply.to"),
    Message("a", 8, b""),
    Message("a", 8, b"hi", "r", 408),
    Refusal('Permissions Violation for Publish to "x"'),
]


@given(st.lists(st.integers(0, len(SAID)), max_size=8))
def test_what_is_said_is_the_same_wherever_it_is_cut(cuts: list[int]) -> None:
    parser, found = Parser(), []
    places = sorted({0, len(SAID), *cuts})
    for first, last in itertools.pairwise(places):
        found += list(parser.feed(SAID[first:last]))
    assert found == MEANT


@pytest.mark.parametrize(
    "bad",
    [
        b"HELLO\r\n",
        b"\r\n",
        b"MSG a.b seven 5\r\nhello\r\n",
        b"MSG a.b 7\r\n",
        b"MSG a.b 7 -1\r\n\r\n",
        b"MSG a.b 7 x y z 5\r\nhello\r\n",
        b"MSG a.b 7 4\r\nhello\r\n",
        b"MSG a.b 7 999999999999\r\n",
        b"MSG \xff 7 1\r\nx\r\n",
        b"HMSG a 8 9 5\r\nhello\r\n",
        b"HMSG a 8 5 5\r\nhello\r\n",
        b"INFO [1]\r\n",
        b"INFO {\r\n",
        b"x" * (natswire.LINE_LIMIT + 2),
    ],
)
def test_what_no_server_says_is_refused(bad: bytes) -> None:
    with pytest.raises(BrokenLine):
        list(Parser().feed(bad))


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    try:
        list(Parser().feed(data))
    except BrokenLine:
        return


def test_what_we_say() -> None:
    assert natswire.publish("a.b", b"hello") == b"PUB a.b 5\r\nhello\r\n"
    assert natswire.publish("a.b", b"", "back") == b"PUB a.b back 0\r\n\r\n"
    assert natswire.subscribe("a.*", 3) == b"SUB a.* 3\r\n"
    assert natswire.unsubscribe(3) == b"UNSUB 3\r\n"
    once = natswire.publish_with("a", b"xy", "back", {"Nats-Msg-Id": "id-1"})
    assert once == b"HPUB a back 31 33\r\nNATS/1.0\r\nNats-Msg-Id: id-1\r\n\r\nxy\r\n"
    words = natswire.connect("alpha").split(b"\r\n")
    assert words[1:] == [b"PING", b""]
    said = json.loads(words[0].removeprefix(b"CONNECT "))
    assert (said["echo"], said["tls_required"], said["no_responders"]) == (False, True, True)
