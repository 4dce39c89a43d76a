"""The proxy's readers of strangers' bytes: what they take, what they refuse, and that nothing breaks them."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crucible.egress import heads, socks
from crucible.egress.bodies import Body
from crucible.egress.bucket import Bucket
from crucible.egress.heads import Head, Malformed, Target, read_head


def head(*lines: str) -> Head:
    found = read_head("\r\n".join((*lines, "", "")).encode("latin-1"))
    assert found is not None
    assert found[1] == b""
    return found[0]


def test_a_tunnel() -> None:
    assert head("CONNECT api.Example.com:443 HTTP/1.1", "Host: api.example.com:443") == Head(
        Target("api.example.com", 443)
    )
    assert head("CONNECT [2606:4700::1]:443 HTTP/1.0") == Head(Target(ip_address("2606:4700::1"), 443))
    assert read_head(b"CONNECT a.b:1 HTTP/1.1\r\n\r\nrest") == (Head(Target("a.b", 1)), b"rest")


def test_a_request_goes_on_without_what_concerns_the_proxy() -> None:
    found = head(
        "POST http://api.example.com/a?b=c HTTP/1.1",
        "Host: API.example.com",
        "Proxy-Authorization: Basic xyz",
        "Connection: keep-alive, X-Secret",
        "X-Secret: 1",
        "Upgrade: h2c",
        "Content-Length: 5",
        "Accept: */*",
    )
    assert found.target == Target("api.example.com", 80)
    assert found.length == 5
    assert found.onward == (
        b"POST /a?b=c HTTP/1.1\r\nHost: api.example.com\r\ncontent-length: 5\r\naccept: */*\r\n"
        b"Connection: close\r\n\r\n"
    )
    assert head("GET http://a.b:8080 HTTP/1.1").onward.startswith(b"GET / HTTP/1.1\r\nHost: a.b:8080\r\n")
    assert head("GET http://a.b?x HTTP/1.0").onward.startswith(b"GET /?x HTTP/1.0\r\nHost: a.b\r\n")
    assert head("PUT http://a.b/ HTTP/1.1", "Transfer-Encoding: Chunked").length is None


@pytest.mark.parametrize(
    "lines",
    [
        ("GET / HTTP/1.1", "Host: a.b"),
        ("GET https://a.b/ HTTP/1.1",),
        ("GET http://u@a.b/ HTTP/1.1",),
        ("GET http://a.b/#x HTTP/1.1",),
        ("GET http://a.b\\@c.d/ HTTP/1.1",),
        ("GET  http://a.b/ HTTP/1.1",),
        ("GET http://a.b/ HTTP/2.0",),
        ("GET http://a.b/\x7f HTTP/1.1",),
        ("GET http://a.b/ HTTP/1.1 ",),
        ("GET http://a.b/ HTTP/1.1", "Host: c.d"),
        ("GET http://a.b/ HTTP/1.1", "Host: a.b", "Host: a.b"),
        ("GET http://a.b/ HTTP/1.1", "Host: a.b:81"),
        ("GET http://a.b/ HTTP/1.1", " folded: x"),
        ("GET http://a.b/ HTTP/1.1", "X: a", "\tb"),
        ("GET http://a.b/ HTTP/1.1", "X : a"),
        ("GET http://a.b/ HTTP/1.1", "X: a\nY: b"),
        ("GET http://a.b/ HTTP/1.1", "X: a\rY: b"),
        ("GET http://a.b/ HTTP/1.1", "X: \0"),
        ("POST http://a.b/ HTTP/1.1", "Content-Length: 1", "Content-Length: 1"),
        ("POST http://a.b/ HTTP/1.1", "Content-Length: 1", "Transfer-Encoding: chunked"),
        ("POST http://a.b/ HTTP/1.1", "Content-Length: +1"),
        ("POST http://a.b/ HTTP/1.1", "Content-Length: 1,1"),
        ("POST http://a.b/ HTTP/1.1", "Content-Length: 0x1"),
        ("POST http://a.b/ HTTP/1.1", "Content-Length: 99999999999999999999"),
        ("POST http://a.b/ HTTP/1.1", "Transfer-Encoding: gzip, chunked"),
        ("POST http://a.b/ HTTP/1.1", "Transfer-Encoding: xchunked"),
        ("POST http://a.b/ HTTP/1.1", "Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
        ("POST http://a.b/ HTTP/1.0", "Transfer-Encoding: chunked"),
        ("POST http://a.b/ HTTP/1.1", "Content-Length: 1", "Connection: Content-Length"),
        ("CONNECT a.b HTTP/1.1",),
        ("CONNECT a.b:0 HTTP/1.1",),
        ("CONNECT a.b:443/x HTTP/1.1",),
        ("CONNECT http://a.b:443 HTTP/1.1",),
        ("CONNECT a.b:443 HTTP/1.1", "Host: c.d:443"),
        ("CONNECT a.b:443 HTTP/1.1", "Content-Length: 3"),
        ("CONNECT a.b:443 HTTP/1.1", "Transfer-Encoding: chunked"),
        ("CONNECT 127.1:80 HTTP/1.1",),
        ("CONNECT 0177.0.0.1:80 HTTP/1.1",),
        ("CONNECT 0x7f000001:80 HTTP/1.1",),
        ("CONNECT 2130706433:80 HTTP/1.1",),
        ("CONNECT [fe80::1%25eth0]:80 HTTP/1.1",),
        ("CONNECT [::1:80 HTTP/1.1",),
        ("CONNECT ::1:80 HTTP/1.1",),
        ("\x16\x03\x01", "Client Hello"),
    ],
)
def test_what_could_be_understood_in_two_ways_is_refused(lines: tuple[str, ...]) -> None:
    with pytest.raises(Malformed) as caught:
        head(*lines)
    assert caught.value.status in {400, 431}


def test_a_head_is_bounded() -> None:
    assert read_head(b"GET http://a.b/ HTTP/1.1\r\n") is None
    with pytest.raises(Malformed):
        read_head(b"x" * (heads.HEAD_MOST + 1))
    with pytest.raises(Malformed):
        head("GET http://a.b/ HTTP/1.1", *(f"X{number}: 1" for number in range(101)))


@given(st.binary(max_size=2000))
@example(b"CONNECT a.b:443 HTTP/1.1\r\n\r\n")
def test_no_bytes_break_the_reader_of_heads(data: bytes) -> None:
    try:
        found = read_head(data)
    except Malformed:
        return
    assert found is None or found[0].tunnel or found[0].onward.endswith(b"\r\n\r\n")


WORDS = st.sampled_from(
    [
        *(b"GET", b"POST", b"CONNECT", b" ", b"  ", b"\t", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0"),
        *(b"HTTP/1.1", b"HTTP/1.0", b"http://a.b/", b"http://a.b:80/x", b"a.b:443", b"[::1]:80", b"//", b"@"),
        *(
            b"Host: a.b",
            b"Host:a.b:80",
            b"Content-Length: 3",
            b"Transfer-Encoding: chunked",
            b"Connection: host",
        ),
    ]
)


@given(st.lists(WORDS, max_size=24).map(b"".join))
def test_no_words_get_a_second_request_into_a_head(data: bytes) -> None:
    try:
        found = read_head(data)
    except Malformed:
        return
    if found is not None and not found[0].tunnel:
        onward = found[0].onward
        assert onward.count(b"\r\n\r\n") == 1
        assert b"\n" not in onward.replace(b"\r\n", b"")
        assert onward.lower().count(b"\r\nhost:") == 1


def run_body(body: Body, data: bytes, cuts: list[int]) -> bytes:
    """Feed data in pieces."""
    taken, edges = b"", sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        taken += body.feed(data[start:end])
    return taken


@given(st.integers(0, 300), st.binary(max_size=400), st.lists(st.integers(0, 500), max_size=5))
def test_a_body_of_a_known_length_ends_there(length: int, data: bytes, cuts: list[int]) -> None:
    body = Body(length)
    assert run_body(body, data, cuts) == data[:length]
    assert body.ended == (len(data) >= length)


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    st.binary(max_size=30),
    st.lists(st.integers(0, 500), max_size=8),
)
def test_a_body_in_chunks_ends_where_its_last_chunk_does(
    chunks: list[bytes], after: bytes, cuts: list[int]
) -> None:
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    body = Body(None)
    assert run_body(body, framed + after, cuts) == framed
    assert body.ended


@pytest.mark.parametrize(
    "data",
    [
        b"5\nhello",
        b"5;x=y\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"0x5\r\n",
        b"\r\n",
        b"0\r\nX: y\r\n\r\n",
        b"1" * 30,
        b" 5\r\n",
    ],
)
def test_a_chunk_that_could_be_understood_in_two_ways_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        Body(None).feed(data)


@given(st.binary(max_size=300), st.lists(st.integers(0, 500), max_size=8))
def test_no_bytes_break_the_reader_of_bodies(data: bytes, cuts: list[int]) -> None:
    try:
        taken = run_body(Body(None), data, cuts)
    except Malformed:
        return
    assert data.startswith(taken)


def test_socks() -> None:
    assert socks.read_greeting(b"\x05\x02\x00\x02rest") == (socks.Greeting(frozenset({0, 2})), b"rest")
    assert socks.read_request(b"\x05\x01\x00\x03\x03a.b\x01\xbbx") == (Target("a.b", 443), b"x")
    assert socks.read_request(b"\x05\x01\x00\x01\x7f\0\0\x01\0\x50") == (
        Target(ip_address("127.0.0.1"), 80),
        b"",
    )
    assert socks.read_request(b"\x05\x01\x00\x04" + bytes(15) + b"\x01\0\x50") == (
        Target(ip_address("::1"), 80),
        b"",
    )


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x04\x01\x00\x01\x01", socks.FAILED),
        (b"\x05\x02\x00\x01\x01", socks.NOT_SUPPORTED),
        (b"\x05\x03\x00\x01\x01", socks.NOT_SUPPORTED),
        (b"\x05\x01\x00\x02\x01", 8),
        (b"\x05\x01\x00\x03\x00\x00\x50", 8),
        (b"\x05\x01\x00\x03\x051.2.3\x00\x50", socks.UNREACHABLE),
        (b"\x05\x01\x00\x03\x03a\0b\x00\x50", socks.UNREACHABLE),
        (b"\x05\x01\x00\x03\x03a.b\x00\x00", socks.FAILED),
    ],
)
def test_socks_requests_that_are_refused(data: bytes, code: int) -> None:
    with pytest.raises(Malformed) as caught:
        socks.read_request(data)
    assert caught.value.status == code


@given(st.binary(max_size=400))
def test_no_bytes_break_the_reader_of_socks(data: bytes) -> None:
    greeting = socks.read_greeting(b"\x05" + data)
    assert greeting is None or len(greeting[1]) <= len(data)
    try:
        found = socks.read_request(b"\x05\x01\x00" + data)
    except Malformed:
        return
    assert found is None or 1 <= found[0].port <= 65535


@given(st.lists(st.integers(1, 1 << 18), min_size=1, max_size=50), st.integers(1 << 10, 1 << 24))
def test_whoever_waits_as_told_stays_below_the_rate(sizes: list[int], rate: int) -> None:
    bucket, now = Bucket(rate, 0.0), 0.0
    for size in sizes:
        now += bucket.take(size, now)
    burst = max(rate * 0.25, 1 << 14)
    assert sum(sizes) <= now * rate + burst + 1


def test_without_a_rate_nobody_waits() -> None:
    assert Bucket(None, 0.0).take(1 << 40, 0.0) == 0.0
