"""gRPC probes: what a real server says, and what a hostile one may send."""

from __future__ import annotations

import socket
import time
from concurrent import futures
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

import grpc as real
import pytest
from build import UID, plugin
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given
from hypothesis import strategies as st

from crucible.core.admission import admit
from crucible.model.health import Answer
from crucible.model.probe import GrpcProbe
from crucible.model.workload import Slot
from crucible.probes.asking import Subject, ask
from crucible.probes.grpc import MOST, Call, framed, request_of, status_of
from crucible.runtimes.base import Connected
from crucible.runtimes.fake import FakeHost, FakeRuntime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from crucible.model.probe import Probe

SLOT = Slot(0, 1)
OK = (":status", "200"), ("content-type", "application/grpc")
SERVING = framed(b"\x08\x01")


class AtPort(FakeRuntime):
    """A runtime whose instances' ports are those of a server in this process."""

    def __init__(self, port: int) -> None:
        super().__init__(FakeHost())
        self.port = port

    @asynccontextmanager
    async def connect(self, plugin_uid: str, slot: Slot, port: int) -> AsyncIterator[Connected]:
        del plugin_uid, slot, port
        with socket.create_connection(("127.0.0.1", self.port)) as door:
            door.setblocking(False)
            yield Connected(door)


def probe(service: str = "", timeout: str = "30s") -> Probe:
    spec = admit(plugin(health={"ready": {"grpc": {"port": 8080, "service": service}, "timeout": timeout}}))
    assert spec.health.ready is not None
    return spec.health.ready


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """Serve the health of two services, and of the whole; yield the port."""
    serving = real.server(futures.ThreadPoolExecutor(1))
    said = HealthServicer()
    for service, status in (("", "SERVING"), ("notes.Notes", "SERVING"), ("down.Down", "NOT_SERVING")):
        said.set(service, health_pb2.HealthCheckResponse.ServingStatus.Value(status))
    health_pb2_grpc.add_HealthServicer_to_server(said, serving)
    port = serving.add_insecure_port("127.0.0.1:0")
    serving.start()
    yield port
    serving.stop(None).wait()


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ("", ""),
        ("notes.Notes", ""),
        ("down.Down", "NOT_SERVING"),
        ("a" * 255, f"it knows no service '{'a' * 255}' (NOT_FOUND)"),
    ],
)
async def test_a_real_server_says_how_it_is(server: int, service: str, message: str) -> None:
    found = await ask(probe(service), Subject(AtPort(server), UID, SLOT))
    assert found.answer == Answer(ok=not message, message=message)


async def test_a_real_server_without_the_service_is_not_well() -> None:
    serving = real.server(futures.ThreadPoolExecutor(1))
    port = serving.add_insecure_port("127.0.0.1:0")
    serving.start()
    found = await ask(probe(), Subject(AtPort(port), UID, SLOT))
    serving.stop(None).wait()
    assert found.answer == Answer(ok=False, message="it has no health service (UNIMPLEMENTED)")


async def test_one_that_says_nothing_is_given_up() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        found = await ask(probe(timeout="50ms"), Subject(AtPort(silent.getsockname()[1]), UID, SLOT))
    assert found.answer == Answer(ok=False, message="no answer within 0.05 s")


def replying(
    *headers: tuple[str, str],
    body: bytes = SERVING,
    trailers: Sequence[tuple[str, str]] = (("grpc-status", "0"),),
) -> Answer:
    """Return what a call comes to that a server answers like this."""
    call = Call(GrpcProbe(port=8080))
    other = H2Connection(H2Configuration(client_side=False, validate_outbound_headers=False))
    other.initiate_connection()
    other.receive_data(call.outgoing())
    other.send_headers(1, headers or OK)
    other.send_data(1, body)
    other.send_headers(1, trailers, end_stream=True)
    call.take(other.data_to_send())
    assert call.over
    return call.answer()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, ""),
        ({"trailers": [("grpc-status", "7")]}, "gRPC status 7"),
        ({"trailers": [("x", "y")]}, "gRPC status missing"),
        ({"trailers": [("grpc-status", "\x1b[31m" + "9" * 99)]}, f"gRPC status [31m{'9' * 16}"),
        ({"body": b""}, "the answer is no message of the health service"),
        ({"body": framed(b"")}, "UNKNOWN"),
        ({"body": framed(b"\x08\x03")}, "SERVICE_UNKNOWN"),
        ({"body": framed(b"\x08\x63")}, "status 99"),
        ({"body": b"\x01" + SERVING[1:]}, "the answer is no message of the health service"),
        ({"body": SERVING * 2}, "the answer is no message of the health service"),
    ],
)
def test_only_serving_is_well(fields: dict[str, object], message: str) -> None:
    found = replying(**fields)  # type: ignore[arg-type]
    assert (found.ok, found.message) == (not message, message)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([(":status", "302"), ("location", "http://169.254.169.254/")], "HTTP status 302"),
        ([(":status", "200"), ("content-type", "text/html")], "the answer is no gRPC"),
    ],
)
def test_what_is_no_grpc_is_not_well(headers: list[tuple[str, str]], message: str) -> None:
    assert replying(*headers) == Answer(ok=False, message=message)


def frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + stream.to_bytes(4, "big") + payload


SETTINGS = frame(4, 0)
HOSTILE = {
    "HTTP/1": (b"HTTP/1.1 200 OK\r\n\r\n", "the answer is no HTTP/2"),
    "nothing": (b"", "no answer before the end"),
    "settings only": (SETTINGS, "no answer before the end"),
    "reset": (SETTINGS + frame(3, 1, b"\0\0\0\x0b"), "the call was ended with the HTTP/2 error 11"),
    "goodbye": (SETTINGS + frame(7, 0, bytes(8)), "the call was ended with the HTTP/2 error 0"),
    "a push": (SETTINGS + frame(5, 1, b"\0\0\0\2\x88", 4), "the answer is no HTTP/2"),
    "pings without end": (SETTINGS + frame(6, 0, bytes(8)) * 5000, "the answer is too long"),
    "settings without end": (SETTINGS * 5000, "the answer is too long"),
    "a frame that is too large": (SETTINGS + frame(0, 1, bytes(70_000)), "the answer is too long"),
    # One entry of 4000 bytes in the table of headers, which every byte after it names again.
    "a header bomb": (
        SETTINGS + frame(1, 1, b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000 + b"\xbe" * 8000, 4),
        "the answer is no HTTP/2",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_server_costs_little_and_is_not_well(name: str) -> None:
    said, message = HOSTILE[name]
    call = Call(GrpcProbe(port=8080))
    call.outgoing()
    before, sent, at = time.process_time(), 0, 0
    while not call.over:
        call.take(said[at : at + 4096])
        sent += len(call.outgoing())
        at += 4096
    assert call.answer() == Answer(ok=False, message=message)
    assert at <= MOST + 8192
    assert sent <= 2 * MOST
    assert time.process_time() - before < 2


@given(st.binary(max_size=64))
def test_any_bytes_are_a_status_or_none(body: bytes) -> None:
    for found in (status_of(body), status_of(framed(body))):
        assert found is None or found >= 0


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_any_bytes_are_survived(chunks: list[bytes]) -> None:
    call = Call(GrpcProbe(port=8080))
    for chunk in (SETTINGS, *chunks, b""):
        call.take(chunk)
    assert call.over
    assert not call.answer().ok


@given(st.integers(0, 3), st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=255))
def test_messages_are_those_of_the_real_library(status: int, service: str) -> None:
    real_answer = health_pb2.HealthCheckResponse(status=status)
    assert status_of(framed(real_answer.SerializeToString())) == status
    assert request_of(service) == health_pb2.HealthCheckRequest(service=service).SerializeToString()


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"\x12\x02hi\x08\x01", 1),  # an unknown field before
        (b"\x08\x02\x08\x01", 1),  # the last one counts
        (b"\x11" + bytes(8) + b"\x1d" + bytes(4), 0),
        (b"\x0a\x00", None),  # field 1 is no text
        (b"\x12\x7f", None),  # longer than it is
        (b"\x08" + b"\xff" * 11, None),
        (b"\x0b", None),
        (b"\x00", None),
    ],
)
def test_messages_are_read_as_protobuf_has_them(message: bytes, status: int | None) -> None:
    assert status_of(framed(message)) == status
