"""A hostile plugin looks around its container and tries every way out."""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness_docker import DockerHarness

X32 = '"x32 getpid": (0x40000000 | 39,),'
# A call of the x32 machine ends the program here, so it is tried apart.
PROGRAM = (Path(__file__).parent / "attempts.py").read_text().replace(X32, "")
SECRET = "a host's secret"


@pytest.fixture
async def found(docker: DockerHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a hostile plugin found, on a host with things worth finding."""
    monkeypatch.setenv("HOST_SECRET", SECRET)
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as abstract,
    ):
        name = f"crucible-test-{os.getpid()}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        files = {
            "host file": str(secret),
            "checkout": __file__,
            "through init": f"/proc/1/root{secret}",
            "engine's socket": docker.engine.url.removeprefix("unix://"),
            "usual socket": "/var/run/docker.sock",
            "kernel log": "/dev/kmsg",
            "memory": "/dev/mem",
            "shadow": "/etc/shadow",
        }
        config = {
            "files": files,
            "port": listener.getsockname()[1],
            "abstract": name,
            "pid": 4_000_000,
        }
        ended = await docker.run(docker.script(PROGRAM, "hostile", config=json.dumps(config)))
    lines = await docker.lines(docker.script(PROGRAM, "hostile"))
    assert ended.exit is not None
    assert (ended.exit.code, len(lines)) == (0, 1), b"\n".join(lines).decode()
    return dict(json.loads(lines[0]))


async def test_nothing_of_the_host_can_be_reached(found: dict[str, Any]) -> None:
    reads = {name: result for name, result in found.items() if name.startswith("read ")}
    assert set(reads.values()) <= {"ENOENT", "EACCES", "EPERM"}, reads
    assert len(reads) == 8
    assert SECRET not in json.dumps(found)
    assert "HOST_SECRET" not in found["environment"]
    assert found["setuid files"] == []
    assert set(found["devices"]) <= {
        *("core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm"),
        *("stderr", "stdin", "stdout", "tty", "urandom", "zero"),
    }


async def test_only_scratch_space_can_be_written(found: dict[str, Any]) -> None:
    # /dev is a tmpfs of the container's own, owned by root.
    writes = {name: result for name, result in found.items() if name.startswith("write ")}
    allowed = {"write /tmp/x": "written", "write /dev/null": "written"}
    assert {name: result for name, result in writes.items() if name in allowed} == allowed
    refused = {name: result for name, result in writes.items() if name not in allowed}
    assert set(refused.values()) <= {"EROFS", "EACCES", "EPERM"}, refused


async def test_no_network_but_a_loopback_of_its_own(found: dict[str, Any]) -> None:
    assert found["interfaces"] == ["lo"]
    assert found["host loopback"] == "ECONNREFUSED"
    assert found["world"] == "ENETUNREACH"
    assert found["abstract socket"] == "ECONNREFUSED"
    assert found["raw socket"] == "EPERM"
    for family in ("packet socket", "vsock", "alg socket", "netlink audit"):
        assert found[family] == "EAFNOSUPPORT", family


async def test_no_privilege_is_held_or_gained(found: dict[str, Any], docker: DockerHarness) -> None:
    status = found["status"]
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    uid = docker.settings().first_uid
    assert found["ids"] == [uid, uid, uid, uid, found["ids"][4]]
    assert set(found["ids"][4]) <= {uid}
    for name in ("setuid", "setgid", "chown", "device", "raise files", "nice"):
        assert found[name] in {"EPERM", "EINVAL", "EACCES"}, name
    assert found["kill host"] == "ESRCH"


async def test_other_processes_are_out_of_sight(found: dict[str, Any]) -> None:
    assert len(found["processes"]) == 2
    assert found["processes"][0] == 1


async def test_nothing_is_handed_down_but_what_is_promised(found: dict[str, Any]) -> None:
    assert found["other descriptors"] == []
    assert found["host name"] == "hostile-0-1"
    assert set(found["environment"]) >= {"CRUCIBLE_PLUGIN", "CRUCIBLE_CONFIG", "CRUCIBLE_SOURCE", "HOME"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the calls are tried by x86_64's numbers")
async def test_system_calls_are_refused_as_the_process_runtime_does(found: dict[str, Any]) -> None:
    absent = {"clone3", "unknown"}
    for name, result in found["calls"].items():
        assert result == ("ENOSYS" if name in absent else "EPERM"), name


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 is a second machine of x86_64's")
async def test_a_call_of_another_machine_ends_the_program(docker: DockerHarness) -> None:
    ended = await docker.run(docker.script("import ctypes; ctypes.CDLL(None).syscall(0x40000000 | 39)"))
    assert ended.exit is not None
    assert ended.exit.signal == signal.SIGSYS
