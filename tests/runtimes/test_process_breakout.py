"""A hostile plugin looks around its sandbox and tries every way out."""

from __future__ import annotations

import json
import os
import platform
import socket
from pathlib import Path
from typing import Any

import pytest
from harness import FIRST, ProcessHarness, facts

PROGRAM = (Path(__file__).parent / "attempts.py").read_text()
SECRET = "a host's secret"


@pytest.fixture
async def found(process: ProcessHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a hostile plugin found, beside another plugin, on a host with things worth finding."""
    monkeypatch.setenv("HOST_SECRET", SECRET)
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    other = process.script("import signal; signal.pause()", "other", env=(("OTHER_SECRET", SECRET),))
    await process.runtime.start(other, FIRST)
    running = await process.until(other, lambda one: one.pid is not None)
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
            "passwd": "/etc/shadow",
            "other's record": str(process.state / "instances/uid-other/0-1/record.json"),
            "other's environment": f"/proc/{running.pid}/environ",
            "own record": str(process.state / "instances/uid-hostile/0-1/record.json"),
            "through init": f"/proc/1/root{secret}",
            "kernel log": "/dev/kmsg",
            "memory": "/dev/mem",
        }
        config = {
            "files": files,
            "port": listener.getsockname()[1],
            "abstract": name,
            "pid": os.getpid(),
        }
        hostile = process.script(PROGRAM, "hostile", config=json.dumps(config), env=(("MODE", "fast"),))
        ended = await process.run(hostile)
    lines = await process.lines(hostile)
    assert ended.exit is not None
    assert (ended.exit.code, len(lines)) == (0, 1), b"\n".join(lines).decode()
    result = json.loads(lines[0])
    result["host pid"] = ended.pid
    return dict(result)


async def test_nothing_of_the_host_can_be_reached(found: dict[str, Any]) -> None:
    reads = {name: result for name, result in found.items() if name.startswith("read ")}
    assert set(reads.values()) <= {"ENOENT", "EACCES", "EPERM"}, reads
    assert len(reads) == 9
    assert found["hosts"] == []
    assert found["run"] == ["crucible"]
    assert SECRET not in json.dumps(found)
    places = {"config", "data", "dev", "etc", "plugin", "proc", "run", "secrets", "tmp", "usr"}
    assert found["root"] == sorted({*places, *_libraries()})
    assert [name for name in found["programs"] if not name.startswith("python3")] == []
    assert found["shell"] == 127
    assert found["setuid files"] == []
    assert found["devices"] == sorted(
        ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"]
    )


async def test_only_scratch_space_can_be_written(found: dict[str, Any]) -> None:
    writes = {name: result for name, result in found.items() if name.startswith("write ")}
    allowed = {"write /tmp/x": "written", "write /dev/null": "written"}
    assert {name: result for name, result in writes.items() if name in allowed} == allowed
    refused = {name: result for name, result in writes.items() if name not in allowed}
    assert set(refused.values()) <= {"EROFS", "EACCES", "EPERM"}, refused
    assert found["reopen stdout"] == "opened"


async def test_no_network_but_a_loopback_of_its_own(found: dict[str, Any]) -> None:
    assert found["interfaces"] == ["lo"]
    assert found["host loopback"] == "ECONNREFUSED"
    assert found["world"] == "ENETUNREACH"
    assert found["abstract socket"] == "ECONNREFUSED"
    assert found["raw socket"] == "EPERM"
    for family in ("packet socket", "vsock", "alg socket", "netlink audit"):
        assert found[family] == "EAFNOSUPPORT", family


async def test_no_privilege_is_held_or_gained(found: dict[str, Any]) -> None:
    status = found["status"]
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert found["ids"][:4] == [1000, 1000, 1000, 1000]
    for name in ("setuid", "setgid", "chown", "device", "raise files", "nice"):
        assert found[name] in {"EPERM", "EINVAL", "EACCES"}, name
    assert found["kill host"] == "ESRCH"


async def test_other_processes_are_out_of_sight(found: dict[str, Any]) -> None:
    assert found["processes"] == [1, 2]
    assert found["status"]["NSpid"].split() == ["2"]
    names = {entry.partition("=")[0] for entry in found["init environment"].split("\0") if entry}
    assert names <= {"LD_LIBRARY_PATH"}  # where bubblewrap's own libraries are; nothing of the controller's
    assert all(line.endswith(":/") for line in found["cgroup"])


async def test_nothing_is_handed_down_but_what_is_promised(found: dict[str, Any]) -> None:
    assert found["other descriptors"] == []
    assert found["descriptors"][0] == "/dev/null"
    assert found["environment"] == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "PWD": "/plugin",
        "CRUCIBLE_PLUGIN": "hostile",
        "CRUCIBLE_NAMESPACE": "default",
        "CRUCIBLE_INSTANCE": "hostile-0-1",
        "CRUCIBLE_CONFIG": "/config/config.json",
        "CRUCIBLE_SOURCE": "/plugin",
        "MODE": "fast",
    }
    assert found["host name"] == "hostile-0-1"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the calls are tried by x86_64's numbers")
async def test_system_calls_are_refused_by_the_filter(found: dict[str, Any]) -> None:
    absent = {"clone3", "unknown"}
    for name, result in found["calls"].items():
        assert result == ("ENOSYS" if name in absent else "EPERM"), name


async def test_each_instance_has_a_user_of_its_own(process: ProcessHarness) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give uids away: run the tests as root for this one")
    uids = set()
    for number in range(3):
        workload = process.workload("stay", name=f"p{number}")
        await process.runtime.start(workload, FIRST)
        running = await process.until(workload, lambda one: one.pid is not None)
        uid, status = facts(running.pid)
        assert status["Groups"] == ""
        uids.add(uid)
    assert len(uids) == 3
    assert all(uid >= 1_900_000_000 for uid in uids)


@pytest.fixture
def private(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)


@pytest.mark.usefixtures("private")
async def test_a_source_and_a_root_below_private_directories_can_be_run(process: ProcessHarness) -> None:
    ended = await process.run(process.workload("exit:0"))
    assert ended.exit is not None
    assert ended.exit.code == 0


def _libraries() -> set[str]:
    root = Path("/")
    return {name for name in ("lib", "lib64") if (root / name).exists()}
