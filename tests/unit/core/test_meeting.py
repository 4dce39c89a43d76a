"""Where and as whom a machine can be met: what it says of itself is a stranger's word."""

from __future__ import annotations

import pytest

from crucible.bus import news
from crucible.bus.wire import BrokenFrame, Frame, Kind, frames_of
from crucible.core.meeting import address_of, is_of, meeting_of, shows
from crucible.model.backbone import Joining, Meeting


@pytest.mark.parametrize(
    ("identity", "of_beta"),
    [
        ("beta", True),
        ("beta.0011.backbone.crucible", True),
        ("beta.example.com", True),
        ("beta-2.example.com", False),
        ("betaa", False),
        ("gamma.beta", False),
        ("", False),
        ("Beta.example.com", False),
        ("*.example.com", False),
        ("beta.", False),
        ("beta.\n", False),
        ("beta." + "x" * 300, False),
    ],
)
def test_a_certificate_is_a_machines_when_its_first_word_is_the_name(identity: str, of_beta: bool) -> None:
    assert is_of(identity, "beta") is of_beta
    assert (meeting_of({"identity": identity, "host": "", "port": 1}, "beta") is not None) is of_beta


@pytest.mark.parametrize(
    "words",
    [
        None,
        [],
        {},
        {"identity": "beta", "host": "", "port": -1},
        {"identity": "beta", "host": "", "port": 65536},
        {"identity": "beta", "host": "", "port": True},
        {"identity": "beta", "host": "", "port": "1"},
        {"identity": "beta", "host": "example.com", "port": 1},
        {"identity": "beta", "host": "10.0.0.1 ", "port": 1},
        {"identity": "beta", "host": "fe80::1%eth0", "port": 1},
        {"identity": "beta", "host": None, "port": 1},
    ],
)
def test_what_is_no_address_is_no_meeting(words: object) -> None:
    assert meeting_of(words, "beta") is None


@pytest.mark.parametrize(
    ("host", "server", "address"),
    [
        ("10.0.0.2", "10.0.0.1", "10.0.0.2"),
        ("fd00::2", "fd00::1", "fd00::2"),
        ("", "nats.example.com", "nats.example.com"),
        ("", "169.254.7.7", "169.254.7.7"),
        ("127.0.0.1", "10.0.0.1", None),
        ("::1", "10.0.0.1", None),
        ("::ffff:127.0.0.1", "10.0.0.1", None),
        ("127.0.0.1", "localhost.example.com", None),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1", None),  # noqa: S104 - compared, not bound
        ("::", "10.0.0.1", None),
        ("169.254.169.254", "10.0.0.1", None),
        ("::ffff:169.254.169.254", "10.0.0.1", None),
        ("fe80::1", "10.0.0.1", None),
        ("224.0.0.1", "10.0.0.1", None),
    ],
)
def test_nobody_has_us_knock_at_what_only_we_can_see(host: str, server: str, address: str | None) -> None:
    assert address_of(Meeting("beta", host, 1), server) == address


@pytest.mark.parametrize("host", ["", "127.0.0.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    ("listen", "alone"),
    [("", True), ("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("10.0.0.1", False)],  # noqa: S104
)
def test_who_has_the_server_is_not_sent_to_its_own_loopback_where_others_reach_it(
    host: str, listen: str, *, alone: bool
) -> None:
    """The server listens at every address then, and we reach it by the loopback."""
    address = address_of(Meeting("beta", host, 6379), "127.0.0.1", listen)
    assert address == ((host or "127.0.0.1") if alone else None)


def test_a_machine_that_listens_nowhere_is_not_dialled() -> None:
    assert address_of(Meeting("beta", "10.0.0.2", 0), "10.0.0.1") is None


def test_a_certificate_shows_exactly_one_name_and_no_pattern() -> None:
    names = (("DNS", "beta.example.com"), ("IP Address", "10.0.0.2"))
    assert shows({"subjectAltName": names}, "beta.example.com")
    assert not shows({"subjectAltName": names}, "beta.example")
    assert not shows({"subjectAltName": names}, "10.0.0.2")
    assert not shows({"subjectAltName": (("DNS", "*.example.com"),)}, "beta.example.com")
    assert not shows({}, "beta")
    assert not shows(None, "beta")
    assert not shows({"subjectAltName": (("DNS", ""),)}, "")


def test_what_a_machine_says_of_itself_comes_back_as_it_was_said() -> None:
    met = Meeting("beta.example.com", "10.0.0.2", 9)
    joining = Joining("beta", "10.0.0.1", 4222, "ca", "certificate", "key", (), met, "10.0.0.2")
    assert Joining.from_json(joining.to_json()) == joining
    said = news.news_of(_payload(news.news("e", 3, [("here", "p", "")], met)), "beta")
    assert said == news.News("e", 3, {("here", "p"): ""}, met)
    assert news.news_of(_payload(news.news("e", 3, [], met)), "gamma").meeting is None
    assert news.news_of(_payload(news.news("e", 3, [], None)), "beta").meeting is None


def test_a_first_word_that_is_no_introduction_is_refused() -> None:
    hello = news.Hello("alpha", "beta", "e", "f")
    assert news.hello_of(news.hello(hello)) == hello
    good = news.hello(hello).payload
    for frame in (
        Frame(Kind.WELCOME, payload=good),
        Frame(Kind.HELLO),
        Frame(Kind.HELLO, payload=b"[]"),
        Frame(Kind.HELLO, payload=b'{"wire": [1]}'),
        Frame(Kind.HELLO, payload=good.replace(b'"line":1', b'"line":2')),
        Frame(Kind.HELLO, payload=good[:-1] + b" " * 2000 + b"}"),
    ):
        with pytest.raises(BrokenFrame):
            news.hello_of(frame)


def _payload(data: bytes) -> bytes:
    (frame,) = frames_of(data)
    return frame.payload
