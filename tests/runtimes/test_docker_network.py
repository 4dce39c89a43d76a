"""A plugin that listens: reached through its relay, and reaching nothing itself."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from harness import FIRST, LIMITS, MIB, wait_for

from crucible.errors import Conflict
from crucible.model.workload import Slot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness_docker import DockerHarness

    from crucible.model.workload import Workload

SERVES = """\
import socket
with socket.create_server(("", 8080)) as server:
    print("serves", flush=True)
    while True:
        link, _ = server.accept()
        with link: link.sendall(b"hello " + link.recv(99))
"""
# Tries every address it is told of, and names that a resolver would have to carry out.
TRIES = """\
import json, os, socket
told = json.load(open(os.environ["CRUCIBLE_CONFIG"]))
found = {}
for address, port in told["addresses"]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as link:
        link.settimeout(0.5)
        place = (address, port, 0, 2) if family == socket.AF_INET6 else (address, port)
        try: found[address] = link.connect(place) or "connected"
        except OSError as error: found[address] = "refused"
names = {}
for name in told["names"]:
    try: names[name] = socket.getaddrinfo(name, 80)[0][4][0]
    except OSError as error: names[name] = "unknown"
print(json.dumps({"found": found, "names": names}), flush=True)
"""
# Listens on every address of the engine's network namespace, on TCP, and on UDP 53 as a name server.
HOST = """\
import socket, threading
tcp = socket.create_server(("::", 9999), family=socket.AF_INET6, dualstack_ipv6=True)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("0.0.0.0", 53))
print("ready", flush=True)
def hear():
    while True: print("asked", udp.recv(999), flush=True)
threading.Thread(target=hear, daemon=True).start()
while True:
    tcp.accept()
    print("reached", flush=True)
"""
CALL = """\
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 60) as link:
    link.sendall(b"you")
    print(link.recv(99).decode())
"""
ROOM = LIMITS.__class__(LIMITS.cpu, 64 * MIB, 32, LIMITS.disk, LIMITS.open_files)


def inside(docker: DockerHarness, *command: str) -> str:
    done = subprocess.run(
        docker.engine.inside(*command), capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.strip()


def call(docker: DockerHarness, workload: Workload) -> str:
    """Speak to a plugin through the port it is said to be reached at."""
    for instance in docker.runtime.instances(workload.plugin_uid):
        for endpoint in instance.endpoints:
            port = endpoint.rpartition(":")[2]
            return inside(docker, "python3", "-c", CALL, port)
    return ""


@contextmanager
def host(docker: DockerHarness) -> Iterator[subprocess.Popen[str]]:
    """Run services on every address of the engine's host."""
    process = subprocess.Popen(docker.engine.inside("python3", "-c", HOST), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def addresses(docker: DockerHarness) -> list[str]:
    """Return every address the engine's host has, but those of its loopback."""
    links: list[dict[str, Any]] = json.loads(inside(docker, "ip", "-j", "addr"))
    return [
        entry["local"]
        for link in links
        for entry in link["addr_info"]
        if link["ifname"] != "lo" and "local" in entry
    ]


@pytest.fixture(autouse=True)
def own_engine(docker: DockerHarness) -> None:
    if docker.engine._process is None:
        pytest.skip("looks into the engine's network: unset DOCKER_HOST for a private engine")


async def serving(docker: DockerHarness, name: str = "serves", slot: Slot = FIRST) -> Workload:
    workload = docker.script(SERVES, name, listen=(8080,), limits=ROOM)
    await docker.runtime.start(workload, slot)
    await wait_for(lambda: call(docker, workload) == "hello you", lambda: docker.engine.log()[-2000:])
    return workload


async def test_a_plugin_that_listens_is_reached_from_the_host_and_reaches_nothing(
    docker: DockerHarness,
) -> None:
    other = await serving(docker, "other")
    await serving(docker)
    theirs = docker.client.inspect_container(docker.container(other))
    ((_, network),) = theirs["NetworkSettings"]["Networks"].items()
    outside = inside(docker, "ip", "-j", "addr")
    assert "192.0.2.1" not in outside
    inside(docker, "ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
    try:
        with host(docker) as services:
            known = [*addresses(docker), "192.0.2.1", "198.51.100.7"]
            assert any(address.startswith("fe80") for address in known)
            config = {
                "addresses": [[address, 9999] for address in known] + [[network["IPAddress"], 8080]],
                "names": ["secret.example.com", "secret", f"{docker.container(other)}"],
            }
            workload = docker.script(TRIES, "tries", listen=(8081,), limits=ROOM, config=json.dumps(config))
            ended = await docker.run(workload)
            (line,) = await docker.lines(workload)
            assert ended.exit is not None
            said = json.loads(line)
            assert set(said["found"].values()) == {"refused"}, said
            assert set(said["names"].values()) == {"unknown"}, said
            services.kill()
            assert services.stdout is not None
            assert services.stdout.read() == ""
    finally:
        inside(docker, "ip", "addr", "del", "192.0.2.1/32", "dev", "lo")


async def test_a_replaced_instance_is_reached_at_the_same_place(docker: DockerHarness) -> None:
    workload = await serving(docker)
    before = docker.instance(workload).endpoints
    await docker.runtime.start(workload, Slot(0, 2))
    await docker.runtime.remove(workload.plugin_uid, FIRST)
    assert docker.instance(workload, Slot(0, 2)).endpoints == before
    await wait_for(lambda: call(docker, workload) == "hello you")


async def test_a_relay_that_was_killed_or_removed_comes_back(docker: DockerHarness) -> None:
    workload = await serving(docker)
    relay = f"crucible-{docker.control_plane}-{workload.plugin_uid}-relay"
    docker.client.kill(relay)
    await wait_for(lambda: call(docker, workload) == "hello you")
    docker.client.remove_container(relay, force=True)
    await wait_for(lambda: call(docker, workload) == "hello you")


async def test_the_next_controller_knows_the_way_in(docker: DockerHarness) -> None:
    workload = await serving(docker)
    before = docker.instance(workload).endpoints
    await docker.reopen()
    assert docker.instance(workload).endpoints == before
    assert call(docker, workload) == "hello you"


async def test_network_and_relay_go_with_the_last_instance(docker: DockerHarness) -> None:
    workload = await serving(docker)
    await docker.runtime.start(workload, Slot(1, 2))
    await docker.runtime.remove(workload.plugin_uid, FIRST)
    assert len(docker._networks()) == 2
    await docker.runtime.remove(workload.plugin_uid, Slot(1, 2))
    assert docker.leftovers() == []


async def test_a_relay_holds_no_privilege(docker: DockerHarness) -> None:
    workload = await serving(docker)
    relay = f"crucible-{docker.control_plane}-{workload.plugin_uid}-relay"
    pid = docker.client.top(relay)["Processes"][0][1]
    status = inside(docker, "cat", f"/proc/{pid}/status")
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (lines["Seccomp"], lines["NoNewPrivs"], int(lines["CapBnd"], 16)) == ("2", "1", 0)


async def test_what_only_has_the_name_of_a_relay_or_a_network_is_said_and_left_alone(
    docker: DockerHarness,
) -> None:
    workload = docker.script(SERVES, listen=(8080,), limits=ROOM)
    network = f"crucible-{docker.control_plane}-{workload.plugin_uid}"
    made = docker.client.create_network(network)  # which leads out
    with pytest.raises(Conflict, match=f"a network that is not ours is named {network}"):
        await docker.runtime.start(workload, FIRST)
    assert docker.client.inspect_network(made["Id"])["Name"] == network
    docker.client.remove_network(made["Id"])
    stranger = docker.client.create_container("crucible/python:0.1.0", ["/x"], name=f"{network}-relay")
    with pytest.raises(Conflict, match=f"a container that is not ours is named {network}-relay"):
        await docker.runtime.start(workload, FIRST)
    await docker.reopen()  # which surveys
    assert docker.client.inspect_container(f"{network}-relay")["Id"] == stranger["Id"]
    docker.client.remove_container(stranger["Id"])
    await docker.runtime.start(workload, FIRST)
    await wait_for(lambda: call(docker, workload) == "hello you", lambda: docker.engine.log()[-2000:])
