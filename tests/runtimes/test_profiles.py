"""The system call profile of each type: wide enough for its example, and really narrower inside a sandbox."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crucible.core.profiles import PROFILES
from crucible.core.seccomp import ALLOW, PROFILE
from crucible.core.syscalls import numbers
from crucible.runtimes.process.roots import WASM_HOST, rune_program

if TYPE_CHECKING:
    from harness import ProcessHarness

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0
CONFIG = {"interval": 0.1, "intervalSeconds": 0.1, "depth": 2, "top": 3, "wordsPerMinute": 230}
CASES = ["python", "javascript", "wasm", "rune", "binary"]

# Calls everything it is told to, with arguments that mean nothing, each in a child that may be ended for it.
TRIES = """\
import ctypes, errno, json, os
libc = ctypes.CDLL(None, use_errno=True)
found = {}
for name, number in json.load(open(os.environ["CRUCIBLE_CONFIG"])).items():
    reader, writer = os.pipe()
    if os.fork() == 0:
        answer = libc.syscall(number, -1, -1, -1, -1, -1, -1)
        os.write(writer, errno.errorcode[ctypes.get_errno()].encode() if answer == -1 else b"let through")
        os._exit(0)
    os.close(writer)
    found[name] = os.read(reader, 100).decode()
    os.close(reader)
    os.wait()
print(json.dumps(found))
"""


@pytest.fixture(scope="session")
def strace() -> str:
    """Find strace, or install it from Debian's packages."""
    if shutil.which("strace") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        words = ("-y", "-qq", "--no-install-recommends", "strace")
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=env, stdout=subprocess.DEVNULL)
        subprocess.run(["apt-get", "install", *words], check=True, env=env, stdout=subprocess.DEVNULL)
    found = shutil.which("strace")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("strace is missing: apt-get install strace")
        pytest.skip("strace is not on PATH: apt-get install strace")
    return found


def program_of(kind: str) -> tuple[list[str], Path]:
    """Return the command that runs a type's example here, and the folder it runs in."""
    example = ROOT / "plugin-images" / kind / "example"
    match kind:
        case "python":
            return [sys.executable, "-I", "main.py"], example / "src"
        case "javascript":
            node = shutil.which("node")
            if node is None:
                pytest.skip("node is not on PATH: apt-get install nodejs")
            return [node, "main.js"], example / "src"
        case "wasm":
            words = [sys.executable, str(WASM_HOST), "--root", "/nowhere", "--", "main.wat", "1000"]
            return words, example / "src"
        case "rune":
            rune = rune_program()
            if rune is None:
                pytest.skip("no Rune host was built: make images ARGS=rune")
            return [str(rune), "--", "main.rn"], example / "src"
        case _:
            subprocess.run(["make", "-s", "-C", str(example)], check=True)
            return ["./fingerprint", str(example)], example / "build"


def trace(strace: str, kind: str, place: Path) -> set[str]:
    """Run a type's example under strace until it has printed twice or ended; return the calls it made."""
    config, calls, output = place / "config.json", place / "calls", place / "output"
    config.write_text(json.dumps(CONFIG))
    command, folder = program_of(kind)
    env = {
        **os.environ,
        "CRUCIBLE_CONFIG": str(config),
        "CRUCIBLE_SOURCE": str(folder),
        "CRUCIBLE_PLUGIN": "traced",
        "CRUCIBLE_NAMESPACE": "default",
        "CRUCIBLE_INSTANCE": "traced-0-1",
        "INTERVAL": "1",
    }
    with output.open("wb") as said:
        traced = subprocess.Popen(
            [strace, "-f", "-qq", "-o", str(calls), *command],
            cwd=folder, env=env, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + SECONDS
        while output.read_bytes().count(b"\n") < 2 and traced.poll() is None:
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.02)
        if traced.poll() is None:
            os.killpg(traced.pid, signal.SIGTERM)
        traced.wait(SECONDS)
    finally:
        if traced.poll() is None:
            os.killpg(traced.pid, signal.SIGKILL)
            traced.wait()
    return set(re.findall(r"^\d+ +([a-z_0-9]+)\(", calls.read_text(), re.MULTILINE))


@pytest.mark.parametrize("kind", CASES)
def test_every_call_of_the_example_is_on_its_types_list(kind: str, strace: str, tmp_path: Path) -> None:
    made = trace(strace, kind, tmp_path)
    assert {"execve", "read", "write"} <= made
    allowed = PROFILES[kind].allowed | {rule.name for rule in PROFILES[kind].conditional}
    assert made - allowed == set()


async def tried(process: ProcessHarness, kind: str, calls: dict[str, int]) -> dict[str, Any]:
    """Make system calls in a sandbox of a type, by a Python that stands in its host's place."""
    roots = process.runtime._prepared.host.roots  # type: ignore[attr-defined]
    root, python = roots["python"]
    real = roots.get(kind)
    # The words a host would be given follow its program: here they are the script's arguments, unread.
    roots[kind] = root, replace(python, before=(*python.before, "/plugin/main.py"))
    try:
        workload = process.script(TRIES, kind, type=kind, config=json.dumps(calls))
        ended = await process.run(workload)
    finally:
        if real is None:
            del roots[kind]
        else:
            roots[kind] = real
    lines = await process.lines(workload)
    assert ended.exit is not None
    assert ended.exit.code == 0, lines
    return dict(json.loads(lines[0]))


@pytest.mark.parametrize("kind", ["python", "javascript", "wasm", "rune"])
async def test_what_a_type_lost_is_refused_inside(process: ProcessHarness, kind: str) -> None:
    table = numbers(platform.machine())
    lost = {name: table[name] for name in PROFILE.allowed - PROFILES[kind].allowed if name in table}
    found = await tried(process, kind, lost)
    assert {name: answer for name, answer in found.items() if answer != "ENOSYS"} == {}
    assert set(found) == set(lost)


async def test_the_general_list_lets_the_same_calls_through(process: ProcessHarness) -> None:
    table = numbers(platform.machine())
    lost = {name: table[name] for name in ("mlockall", "msgget", "semget", "chmod", "umask") if name in table}
    found = await tried(process, "binary", lost)
    assert all(PROFILE.action(name) == ALLOW for name in lost)
    assert [name for name, answer in found.items() if answer == "ENOSYS"] == []
