"""The Python SDK's own codec, held to the reference codec byte for byte."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crucible.bus import wire
from crucible_plugin import errors
from crucible_plugin import wire as sdk
from crucible_plugin.trace import trace_of

EXAMPLES = 2000 if os.environ.get("CRUCIBLE_LONG") else 40
HEADERS = st.dictionaries(
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True), st.text(max_size=50), max_size=8
)
FRAMES = st.builds(
    wire.Frame,
    kind=st.just(wire.Kind.CALL),
    id=st.integers(1, 2**32 - 1),
    name=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255),
    payload=st.binary(max_size=300),
    headers=HEADERS,
    priority=st.integers(0, 3),
    deadline=st.integers(0, wire.LONGEST_DEADLINE),
    flags=st.integers(0, 1),
)


def values(frames: Iterator[sdk.Frame]) -> list[tuple[object, ...]]:
    return [
        (one.kind, one.id, one.name, one.payload, one.headers, one.priority, one.deadline, one.flags)
        for one in frames
    ]


@settings(max_examples=EXAMPLES, deadline=None)
@given(FRAMES, st.integers(1, 60))
def test_it_writes_what_the_reference_writes_and_reads_it_however_it_is_cut(
    frame: wire.Frame, size: int
) -> None:
    data = wire.encode(frame)
    assert sdk.encode(sdk.Frame(*frame)) == data
    decoder = sdk.Decoder()
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    got = [one for part in parts for one in values(decoder.feed(part))]
    assert got == [tuple(frame)]


def test_its_kinds_codes_and_limits_are_the_wires() -> None:
    assert {name: getattr(sdk, name) for name in wire.Kind.__members__} == dict(wire.Kind.__members__)
    assert {code.value for code in wire.Code} == set(errors.BusError._codes)
    assert (sdk.PAYLOAD_LIMIT, sdk.LONGEST_DEADLINE) == (wire.PAYLOAD_LIMIT, wire.LONGEST_DEADLINE)
    later = errors.error_of("FromALaterRelease", b"why", {})
    assert (later.code, str(later)) == ("FromALaterRelease", "FromALaterRelease: why")


@pytest.mark.parametrize(
    "frame",
    [
        sdk.Frame(sdk.CALL, 1, "a" * 256),
        sdk.Frame(sdk.CALL, 1, "a.b", bytes(sdk.PAYLOAD_LIMIT + 1)),
        sdk.Frame(sdk.CALL, 1, "a.b", headers={"a": "x" * 4097}),
        sdk.Frame(sdk.CALL, 1, "a.b", headers={"a": "x" * 4000, "b": "x" * 4000}),
        sdk.Frame(sdk.CALL, 1, "ä.b"),
    ],
)
def test_what_the_broker_would_not_take_is_not_sent(frame: sdk.Frame) -> None:
    with pytest.raises((errors.TooLarge, errors.Malformed)):
        sdk.encode(frame)


def test_bytes_that_no_broker_sends_end_the_connection() -> None:
    with pytest.raises(errors.Malformed, match="frame of 1195725856 bytes"):
        list(sdk.Decoder().feed(b"GET / HTTP/1.1\r\nHost: x\r\n"))


@pytest.mark.parametrize(
    ("parent", "good"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes-later", True),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", False),
        ("", False),
    ],
)
def test_a_trace_is_taken_only_where_it_is_one(parent: str, good: bool) -> None:
    span = trace_of({"traceparent": parent, "tracestate": "a=1"})
    assert (span is not None) == good
    if span is not None:
        assert span.headers["traceparent"].startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")
        assert span.headers["tracestate"] == "a=1"
        assert "00f067aa0ba902b7" not in span.headers["traceparent"]
