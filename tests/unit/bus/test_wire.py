"""The codec: frames survive it, and nothing else does."""

import os
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crucible.bus import wire
from crucible.bus.wire import BrokenFrame, Decoder, Frame, Kind

EXAMPLES = 2000 if os.environ.get("CRUCIBLE_LONG") else 40
NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255)
HEADERS = st.dictionaries(
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True), st.text(max_size=50), max_size=8
)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    kind = draw(st.sampled_from(sorted(wire._SHAPES)))
    shape = wire._SHAPES[kind]
    return Frame(
        kind=kind,
        id=draw(st.integers(1, 2**32 - 1)) if shape.id else 0,
        name=draw(NAMES) if shape.name else "",
        payload=draw(st.binary(max_size=300)) if shape.payload else b"",
        headers=draw(HEADERS),
        priority=draw(st.integers(0, 3)),
        deadline=draw(st.integers(0, wire.LONGEST_DEADLINE)) if shape.deadline else 0,
        flags=draw(st.sampled_from([0, shape.flags])),
    )


def cut(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    parts, at = [], 0
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    return [*parts, data[at:]]


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(frames(), max_size=6), st.lists(st.integers(1, 90), max_size=40))
def test_frames_come_out_as_they_went_in_however_the_bytes_are_cut(
    sent: list[Frame], sizes: list[int]
) -> None:
    data = b"".join(map(wire.encode, sent))
    decoder = Decoder()
    got = [frame for part in cut(data, sizes) for frame in decoder.feed(memoryview(part))]
    assert got == sent
    assert decoder.waiting == 0


@settings(max_examples=EXAMPLES * 2, deadline=None)
@given(st.data())
def test_changed_bytes_are_refused_or_are_another_frame_that_keeps_the_rules(data: st.DataObject) -> None:
    whole = bytearray(wire.encode(data.draw(frames())))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    decoder = Decoder()
    try:
        got = list(decoder.feed(bytes(whole)))
    except BrokenFrame:
        assert list(decoder.feed(wire.encode(Frame(Kind.CANCEL, 1)))) == []
    else:
        assert all(list(Decoder().feed(wire.encode(frame))) == [frame] for frame in got)


@settings(max_examples=EXAMPLES * 2, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused_and_nothing_else(noise: bytes) -> None:
    decoder = Decoder()
    try:
        for frame in decoder.feed(noise):
            assert len(wire.encode(frame)) <= len(noise)
    except BrokenFrame:
        assert decoder.waiting == 0
    else:
        assert decoder.waiting <= len(noise)


BROKEN = [
    ("kind", Frame(Kind.CANCEL, 1), 4, 99),
    ("kind", Frame(Kind.CANCEL, 1), 4, 0),
    ("priority", Frame(Kind.CANCEL, 1), 5, 4),
    ("flags", Frame(Kind.CANCEL, 1), 6, 1),
    ("reserved", Frame(Kind.CANCEL, 1), 7, 1),
    ("has an id", Frame(Kind.CANCEL, 1), 11, 0),
    ("no id", Frame(Kind.HELLO), 11, 1),
    ("deadline", Frame(Kind.CANCEL, 1), 15, 1),
    ("a day", Frame(Kind.CALL, 1, "a.b"), 12, 255),
    ("name", Frame(Kind.CALL, 1, "a.b"), 17, 0),
    ("no payload", Frame(Kind.CANCEL, 1, ""), 3, 17),
    ("too long", Frame(Kind.CALL, 1, "a.b"), 16, 1),
    ("too long", Frame(Kind.CALL, 1, "a.b"), 18, 255),
    ("do not fit", Frame(Kind.CALL, 1, "a.b"), 17, 250),
    ("ASCII", Frame(Kind.CALL, 1, "a.b"), 20, 200),
    ("a space", Frame(Kind.CALL, 1, "a.b"), 20, 32),
    ("control", Frame(Kind.CALL, 1, "a.b"), 20, 10),
    ("shorter", Frame(Kind.CANCEL, 1), 3, 15),
    ("at most", Frame(Kind.CANCEL, 1), 0, 255),
    ("name that is none", Frame(Kind.CANCEL, 1, headers={"a": "b"}), 21, 65),
    ("cut off", Frame(Kind.CANCEL, 1, headers={"a": "b"}), 23, 200),
    ("UTF-8", Frame(Kind.CANCEL, 1, headers={"a": "b"}), 24, 200),
]


@pytest.mark.parametrize(("word", "frame", "at", "value"), BROKEN)
def test_each_broken_rule_is_refused_by_name(word: str, frame: Frame, at: int, value: int) -> None:
    data = bytearray(wire.encode(frame)) + b"\0" * (1 if word == "no payload" else 0)
    data[at] = value
    with pytest.raises(BrokenFrame, match=word):
        list(Decoder().feed(data))


def test_a_header_that_is_there_twice_is_refused() -> None:
    once = wire.encode_headers({"a": "b"})
    with pytest.raises(BrokenFrame, match="twice"):
        wire.decode_headers(once + once)


def test_nothing_over_a_limit_is_written() -> None:
    def frame(**fields: object) -> Frame:
        return Frame(Kind.CALL, 1, "a.b")._replace(**fields)  # type: ignore[arg-type]

    over = [
        frame(name="a" * 256),
        frame(payload=b"x" * (wire.PAYLOAD_LIMIT + 1)),
        frame(headers={f"h{number}": "" for number in range(33)}),
        frame(headers={"a": "x" * 4096}),
        frame(headers={"a": "x" * 70_000}),
        frame(headers={"A": ""}),
        frame(name="ä.b"),
        frame(priority=4),
    ]
    for entry in over:
        with pytest.raises(BrokenFrame):
            wire.encode(entry)


def test_the_largest_frame_passes_and_the_announcement_of_a_larger_one_does_not() -> None:
    largest = Frame(
        Kind.CALL, 1, "a" * 255, b"x" * wire.PAYLOAD_LIMIT, {f"h{n}": "x" * 1018 for n in range(4)}
    )
    data = wire.encode(largest)
    decoder = Decoder()
    parts = [data[at : at + 65536] for at in range(0, len(data), 65536)]
    assert [frame for part in parts for frame in decoder.feed(part)] == [largest]
    with pytest.raises(BrokenFrame, match="at most"):
        list(Decoder().feed((wire.LENGTH_LIMIT + 1).to_bytes(4, "big")))


def test_a_credit_is_a_number_in_its_bounds() -> None:
    assert wire.credit_of(wire.credit(1, 16)) == 16
    for payload in (b"", b"\0\0\0\0", b"\0\0\4\1", b"\0\0\0\0\1"):
        with pytest.raises(BrokenFrame):
            wire.credit_of(Frame(Kind.CREDIT, 1, payload=payload))
