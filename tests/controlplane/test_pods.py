"""Running instances as Pods: listed, watched, logged, entered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from commands import Tool
from probe import Probe, probing, until

from crucible.control.apiserver import ApiServer, LogOptions, ServerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

PODS = "/api/v1/namespaces/default/pods"


def pod(name: str, phase: str = "Running") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"containers": [{"name": "main"}]},
        "status": {"phase": phase, "containerStatuses": [{"ready": phase == "Running", "restartCount": 2}]},
    }


class Session:
    """A command that echoes its stdin and exits with 3."""

    def __init__(self) -> None:
        self.typed: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.closed = False

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        yield 2, b"warning\n"
        while (data := await self.typed.get()) is not None:
            yield 1, data.upper()

    async def write(self, data: bytes) -> None:
        await self.typed.put(data)

    async def close_stdin(self) -> None:
        await self.typed.put(None)

    async def resize(self, rows: int, columns: int) -> None:
        await self.typed.put(f"{rows}x{columns}".encode())

    async def wait(self) -> int:
        return 3

    async def close(self) -> None:
        self.closed = True
        await self.typed.put(None)


class Pods:
    """A provider with pods set by the test."""

    def __init__(self) -> None:
        self.pods: list[dict[str, Any]] = []
        self.asked: list[LogOptions] = []
        self.changed: Callable[[], None] = lambda: None

    def set(self, *pods: dict[str, Any]) -> None:
        self.pods = list(pods)
        self.changed()

    def list(self) -> Sequence[dict[str, Any]]:
        return self.pods

    async def logs(self, _namespace: str, name: str, options: LogOptions) -> AsyncIterator[bytes]:
        self.asked.append(options)
        yield f"{name} says hello\n".encode()
        if options.follow:
            yield b"and goodbye\n"

    async def exec(
        self, _namespace: str, _name: str, _command: Sequence[str], *, stdin: bool, tty: bool
    ) -> Session:
        session = Session()
        if not stdin:
            await session.close_stdin()
        assert not tty
        return session

    async def metrics(self, namespace: str, name: str) -> Sequence[dict[str, Any]]:
        usage = {"cpu": "250m", "memory": "20Mi"}
        return [
            {
                "apiVersion": "metrics.k8s.io/v1beta1",
                "kind": "PodMetrics",
                "metadata": pod["metadata"],
                "timestamp": "2026-01-01T00:00:00Z",
                "window": "1s",
                "containers": [{"name": "main", "usage": usage}],
            }
            for pod in self.pods
            if namespace in {"", pod["metadata"]["namespace"]} and name in {"", pod["metadata"]["name"]}
        ]

    def subscribe(self, changed: Callable[[], None]) -> None:
        self.changed = changed


@pytest.fixture
def pods() -> Pods:
    return Pods()


@pytest.fixture
async def server(tmp_path: Path, pods: Pods) -> AsyncIterator[ApiServer]:
    async with ApiServer(ServerSettings(state_dir=tmp_path / "state"), pods=pods) as running:
        yield running


@pytest.fixture
def kubectl(server: ApiServer, kubectl_path: Path, tmp_path: Path) -> Tool:
    return Tool(kubectl_path, server.kubeconfig, tmp_path)


async def test_pods_follow_what_the_provider_lists(probe: Probe, pods: Pods) -> None:
    async with probe.watch(f"{PODS}?watch=1") as watch:
        pods.set(pod("a", "Pending"))
        pods.set(pod("a", "Pending"), pod("b"))
        await probe.until(PODS, lambda reply: reply.names == ["a", "b"])
        pods.set(pod("a"), pod("b"))
        await probe.until(f"{PODS}/a", lambda reply: reply.body["status"]["phase"] == "Running")
        pods.set(pod("a"))
        await probe.until(PODS, lambda reply: reply.names == ["a"])
        kinds = [(event["type"], event["object"]["metadata"]["name"]) for event in await watch.take(4)]
    assert kinds == [("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]
    assert (await probe.get(f"{PODS}?fieldSelector=status.phase=Running")).names == ["a"]


async def test_pods_cannot_be_written(probe: Probe, pods: Pods) -> None:
    pods.set(pod("a"))
    await probe.until(f"{PODS}/a", lambda reply: reply.code == 200)
    assert (await probe.delete(f"{PODS}/a")).code == 405
    assert (await probe.patch(f"{PODS}/a", {})).code == 405


async def test_pods_of_an_earlier_run_do_not_linger(tmp_path: Path, pods: Pods) -> None:
    settings = ServerSettings(state_dir=tmp_path / "other")
    async with (
        ApiServer(settings, pods=pods) as server,
        probing(server.url, server.ca, server.token) as probe,
    ):
        pods.set(pod("a"))
        await probe.until(PODS, lambda reply: reply.names == ["a"])
    async with ApiServer(settings) as server, probing(server.url, server.ca, server.token) as probe:
        assert (await probe.get(PODS)).body["items"] == []


async def test_kubectl_reads_logs(kubectl: Tool, pods: Pods, probe: Probe) -> None:
    pods.set(pod("a"))
    await probe.until(f"{PODS}/a", lambda reply: reply.code == 200)
    assert await kubectl.ok("logs", "a") == "a says hello\n"
    assert await kubectl.ok("logs", "-f", "a", "--tail=5", "--since=1m") == "a says hello\nand goodbye\n"
    assert await kubectl.ok("logs", "a", "--previous") == "a says hello\n"
    assert pods.asked[1] == LogOptions(follow=True, tail=5, since=60.0)
    assert pods.asked[2].previous
    assert (await kubectl.run("logs", "nobody")).code != 0


async def test_which_part_of_the_output_is_read_and_checked(probe: Probe, pods: Pods) -> None:
    pods.set(pod("a"))
    await probe.until(f"{PODS}/a", lambda reply: reply.code == 200)
    moment = "2026-01-02T03:04:05.5Z"
    reply = await probe.get(f"{PODS}/a/log?sinceTime={moment}&timestamps=true&limitBytes=5")
    assert reply.body == {"_text": "a say"}
    assert pods.asked == [LogOptions(since_time=1767323045.5, timestamps=True)]
    for wrong in (
        *("tailLines=-1", "tailLines=x", "sinceSeconds=0", "sinceTime=yesterday", "limitBytes=0"),
        f"sinceSeconds=1&sinceTime={moment}",
    ):
        assert (await probe.get(f"{PODS}/a/log?{wrong}")).code == 400, wrong


async def test_kubectl_tops_what_the_provider_measures(kubectl: Tool, pods: Pods, probe: Probe) -> None:
    pods.set(pod("a"), pod("b"))
    await probe.until(PODS, lambda reply: reply.names == ["a", "b"])
    rows = [line.split() for line in (await kubectl.ok("top", "pods")).splitlines()]
    assert rows == [["NAME", "CPU(cores)", "MEMORY(bytes)"], ["a", "250m", "20Mi"], ["b", "250m", "20Mi"]]
    assert len((await kubectl.ok("top", "pod", "-l", "app=a")).splitlines()) == 2
    assert (await kubectl.run("top", "pod", "nobody")).code != 0
    metrics = "/apis/metrics.k8s.io/v1beta1"
    assert (await probe.get(f"{metrics}/namespaces/other/pods")).body["items"] == []
    assert (await probe.get(f"{metrics}/pods")).names == ["a", "b"]
    assert (await probe.delete(f"{metrics}/namespaces/default/pods/a")).code == 405
    assert (await kubectl.ok("get", "pods", "-o", "name")).split() == ["pod/a", "pod/b"]


async def test_kubectl_enters_with_stdin_and_gets_the_exit_code(
    kubectl: Tool, pods: Pods, probe: Probe
) -> None:
    pods.set(pod("a"))
    await probe.until(f"{PODS}/a", lambda reply: reply.code == 200)
    ran = await kubectl.run("exec", "-i", "a", "--", "cat", stdin="typed")
    assert (ran.code, ran.out) == (3, "TYPED")
    assert "warning" in ran.err
    assert (await kubectl.run("exec", "a", "--", "true")).code == 3


async def test_get_pods_shows_what_people_know(kubectl: Tool, pods: Pods, probe: Probe) -> None:
    pods.set(pod("a"))

    async def listed() -> bool:
        return (await probe.get(PODS)).names == ["a"]

    await until(listed)
    header, row = (await kubectl.ok("get", "pods")).splitlines()
    assert header.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[:4] == ["a", "1/1", "Running", "2"]
