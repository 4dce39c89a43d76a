"""gRPC probes, asked of a real gRPC server that runs inside a sandbox."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google.protobuf
import grpc
import grpc_health
import pytest
import typing_extensions
from harness import FIRST, LIMITS, MIB

from crucible.model.health import Answer
from crucible.model.probe import GrpcProbe, Probe
from crucible.probes.asking import Subject, ask

if TYPE_CHECKING:
    from harness import ProcessHarness
    from harness_docker import DockerHarness

    Harness = ProcessHarness | DockerHarness

PROGRAM = """\
from concurrent import futures
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
server = grpc.server(futures.ThreadPoolExecutor(1))
said = health.HealthServicer()
said.set("", health_pb2.HealthCheckResponse.SERVING)
said.set("down", health_pb2.HealthCheckResponse.NOT_SERVING)
health_pb2_grpc.add_HealthServicer_to_server(said, server)
server.add_insecure_port("0.0.0.0:8080")
server.start()
server.wait_for_termination()
"""


@pytest.fixture(params=["process", "docker"])
def boxed(request: pytest.FixtureRequest) -> Any:
    """Each runtime that keeps instances apart on this host."""
    return request.getfixturevalue(request.param)


async def test_a_server_in_a_sandbox_says_how_it_is(boxed: Harness) -> None:
    """The library comes with the plugin: the sandbox has none of it."""
    source = boxed.source("grpc", {"main.py": PROGRAM})
    place = boxed.sources / source
    for package in (grpc, grpc_health):
        shutil.copytree(Path(str(package.__file__)).parent, place / package.__name__)
    shutil.copytree(Path(str(google.protobuf.__file__)).parent, place / "google/protobuf")
    shutil.copy(str(typing_extensions.__file__), place)
    limits = replace(LIMITS, memory=128 * MIB, pids=64)
    workload = boxed.workload(name="grpc", source=source, entrypoint=("main.py",), limits=limits)
    await boxed.runtime.start(workload, FIRST)

    async def answer(service: str) -> Answer | None:
        probe = Probe(grpc=GrpcProbe(port=8080, service=service), timeout="30s")
        return (await ask(probe, Subject(boxed.runtime, workload.plugin_uid, FIRST))).answer

    deadline = time.monotonic() + 60
    while (found := await answer("")) != Answer(ok=True):
        assert boxed.instance(workload).alive, (found, b"\n".join(await boxed.lines(workload)).decode())
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)
    assert await answer("down") == Answer(ok=False, message="NOT_SERVING")
