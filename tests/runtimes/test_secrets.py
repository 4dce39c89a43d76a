"""What a plugin finds of its Secrets, seen from inside, and that nobody else finds it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness import FIRST, PYTHON, facts
from onlooker import contents, files, processes, told

from crucible.core.secrets import FILES_LIMIT
from crucible.errors import Conflict, Unavailable
from crucible.model.enforcement import Control, Level
from crucible.model.instance import State
from crucible.model.secret import SecretVariable
from crucible.runtimes.docker import DockerRuntime
from crucible.runtimes.process import argv

if TYPE_CHECKING:
    from harness import ProcessHarness
    from harness_docker import DockerHarness

    from crucible.model.workload import Workload

GRANTED = (("api", "version"),)
# Looks at its Secrets, tries to change them, prints what came of it, and stays.
PROGRAM = """\
import errno, hashlib, json, os, signal
def attempt(function, *arguments):
    try:
        return repr(function(*arguments))
    except OSError as error:
        return errno.errorcode[error.errno]
path = "/secrets/api/token"
files = {f"{at}/{name}": hashlib.sha256(open(f"{at}/{name}", "rb").read()).hexdigest()
         for at, _, names in os.walk("/secrets") for name in names}
status = os.stat(path) if files else None
mounts = [line.split() for line in open("/proc/self/mountinfo")]
print(json.dumps({
    "files": files,
    "mode": status and status.st_mode & 0o7777,
    "mine": status and (status.st_uid, status.st_gid) == (os.getuid(), os.getgid()),
    "mounts": [[line[5], line[line.index("-") + 1]] for line in mounts if line[4].startswith("/secrets")],
    "environment": dict(os.environ),
    "write": attempt(open, path, "r+b"),
    "create": attempt(open, "/secrets/api/more", "xb"),
    "create above": attempt(os.mkdir, "/secrets/more"),
    "chmod": attempt(os.chmod, path, 0o666),
    "unlink": attempt(os.unlink, path),
    "rename": attempt(os.rename, path, path + "2"),
}), flush=True)
signal.pause()
"""
REFUSED = ("write", "create", "create above", "chmod", "unlink", "rename")


async def look(harness: Any, **changes: Any) -> tuple[dict[str, Any], Workload]:
    """Run the program; return what it found, and the workload, which goes on running."""
    workload = harness.script(PROGRAM, "keeper", **changes)
    await harness.runtime.start(workload, FIRST)
    await harness.says_in_the_end(workload, b"{")
    return json.loads((await harness.lines(workload))[-1]), workload


@pytest.fixture(params=["process", "docker"])
def keeper(request: pytest.FixtureRequest) -> Any:
    """Every runtime that shows Secrets, with one granted to its plugins and one that is not."""
    harness = request.getfixturevalue(request.param)
    harness.secrets["api"] = {"token": b"canary-" + secrets.token_hex(8).encode(), "raw": b"\xff\0" * 3000}
    harness.secrets["other"] = {"token": b"other's"}
    return harness


async def test_a_plugin_finds_its_secrets_and_no_others(keeper: Any) -> None:
    found, _ = await look(keeper, secrets=GRANTED)
    wanted = {key: hashlib.sha256(value).hexdigest() for key, value in keeper.secrets["api"].items()}
    assert found["files"] == {f"/secrets/api/{key}": digest for key, digest in wanted.items()}


async def test_nobody_can_change_a_secret_from_inside(keeper: Any) -> None:
    found, _ = await look(keeper, secrets=GRANTED)
    assert {found[name] for name in REFUSED} <= {"EROFS", "EACCES", "EPERM"}, found
    ((options, kind),) = found["mounts"]
    assert "ro" in options.split(",")
    assert kind == "tmpfs"
    assert found["mode"] in {0o400, 0o444}


async def test_a_plugin_that_asks_for_none_finds_none(keeper: Any) -> None:
    found, _ = await look(keeper)
    assert found["files"] == {}
    assert found["mounts"] == []


async def test_what_is_in_a_secret_is_nowhere_on_the_host(keeper: Any) -> None:
    canary = keeper.secrets["api"]["token"]
    _, workload = await look(keeper, secrets=GRANTED, config="{}")
    readable = [path for path in files(keeper.place) if not output(path)]
    assert readable
    assert [path for path in readable if canary in contents(path)] == []
    assert [pid for pid in processes() if canary in told(pid, "cmdline")] == []
    assert [pid for pid in processes() if canary in told(pid, "environ")] == []
    holding = [path for path in files(Path("/dev/shm")) if canary in contents(path)]
    assert all(private(path) for path in holding)
    assert canary not in repr((workload, keeper.runtime.instances())).encode()


def private(path: Path) -> bool:
    """Whether only the controller, and root, can come near a file."""
    return any(above.stat().st_mode & 0o777 == 0o700 for above in path.parents)


def output(path: Path) -> bool:
    """Whether a file is what the plugin of these tests printed itself."""
    return path.name.startswith("log-")


async def test_a_secret_that_went_before_the_start_is_waited_for(keeper: Any) -> None:
    del keeper.secrets["api"]
    workload = keeper.workload("stay", secrets=GRANTED)
    with pytest.raises(Unavailable, match="no Secret api"):
        await keeper.runtime.start(workload, FIRST)
    assert keeper.runtime.instances() == ()
    assert keeper.leftovers() == []


async def test_more_keys_than_can_be_shown_fail_the_start(keeper: Any) -> None:
    keeper.secrets["api"] = dict.fromkeys(map(str, range(FILES_LIMIT + 1)), b"")
    ended = await keeper.run(keeper.workload("stay", secrets=GRANTED))
    assert "129 keys in all" in ended.exit.problem


async def test_as_many_keys_as_can_be_shown_are_shown_to_a_plugin_with_few_open_files(keeper: Any) -> None:
    keeper.secrets["api"] = {str(number): b"x" for number in range(FILES_LIMIT)}
    program = "import os; print(len(os.listdir('/secrets/api')), len(os.listdir('/proc/self/fd')))"
    workload = keeper.script(program, "many", secrets=GRANTED)
    ended = await keeper.run(workload)
    assert ended.exit.code == 0, (ended, await keeper.lines(workload))
    shown, opened = map(int, (await keeper.lines(workload))[-1].split())
    assert shown == FILES_LIMIT
    assert opened <= 4


async def test_removing_an_instance_removes_its_secrets(keeper: Any) -> None:
    _, workload = await look(keeper, secrets=GRANTED)
    await keeper.runtime.remove(workload.plugin_uid, FIRST)
    assert keeper.leftovers() == []


async def test_docker_is_told_of_no_secret(docker: DockerHarness) -> None:
    canary = f"canary-{secrets.token_hex(8)}"
    docker.secrets["api"] = {"token": canary.encode()}
    _, workload = await look(docker, secrets=GRANTED)
    known = json.dumps(docker.client.inspect_container(docker.container(workload)))
    assert "/secrets" in known
    assert canary not in known
    if os.geteuid() == 0:
        memory = Path("/dev/shm", f"crucible-{docker.control_plane}")
        (file,) = (path for path in files(memory) if path.name == "token")
        assert (file.stat().st_uid, file.stat().st_mode & 0o777) == (docker.settings().first_uid, 0o400)


async def test_docker_without_a_file_system_in_memory_offers_no_secrets(docker: DockerHarness) -> None:
    runtime = DockerRuntime(docker.settings(memory=Path("/proc")), docker.sources.joinpath)
    levels = {entry.control: entry.level for entry in runtime.capabilities.controls}
    assert levels[Control.SECRETS] is Level.UNAVAILABLE
    assert levels[Control.SECRET_ENV] is Level.UNAVAILABLE


@pytest.mark.parametrize("words", [("--remount-ro", "/secrets"), ("--perms", "0400")])
async def test_a_sandbox_that_holds_secrets_less_well_is_noticed(
    process: ProcessHarness, monkeypatch: pytest.MonkeyPatch, words: tuple[str, str]
) -> None:
    process.secrets["api"] = {"token": b"hunter2"}
    complete = argv.confirmation

    def weaker(*given: Any) -> tuple[str, ...]:
        made = complete(*given)
        at = next(n for n in range(len(made)) if made[n : n + 2] == words)
        return made[:at] + made[at + 2 :]

    monkeypatch.setattr(argv, "confirmation", weaker)
    found, _ = await look(process, secrets=GRANTED)
    as_promised = {found[name] for name in REFUSED} <= {"EROFS", "EACCES", "EPERM"}
    assert not (as_promised and found["mode"] == 0o400)


TOKEN = SecretVariable("TOKEN", "api", "token")


async def test_a_variable_comes_from_a_secret_and_only_the_plugin_has_it(process: ProcessHarness) -> None:
    canary = f"canary-{secrets.token_hex(8)}"
    process.secrets["api"] = {"token": canary.encode()}
    found, workload = await look(process, secrets=GRANTED, secret_env=(TOKEN,), env=(("MODE", "fast"),))
    assert found["environment"]["TOKEN"] == canary
    assert found["environment"]["MODE"] == "fast"
    running = await process.until(workload, lambda one: one.state is State.RUNNING and one.pid is not None)
    holders = {pid for pid in processes() if canary.encode() in told(pid, "environ")}
    assert holders == {running.pid}
    if os.geteuid() == 0:
        assert facts(running.pid)[0] >= 1_900_000_000  # so that no other plugin may read it
    assert [pid for pid in processes() if canary.encode() in told(pid, "cmdline")] == []
    readable = [path for path in files(process.place) if not output(path)]
    assert [path for path in readable if canary.encode() in contents(path)] == []


async def test_a_command_beside_the_plugin_has_its_secrets_too(process: ProcessHarness) -> None:
    process.secrets["api"] = {"token": b"first"}
    _, workload = await look(process, secrets=GRANTED, secret_env=(TOKEN,))
    program = "import os; print(os.environ['TOKEN'], open('/secrets/api/token').read())"
    assert await process.enter(workload, PYTHON, "-c", program) == (0, b"first first\n", b"")
    del process.secrets["api"]
    with pytest.raises(Conflict, match="no Secret api"):
        await process.enter(workload, PYTHON, "-c", program)


@pytest.mark.parametrize("content", [b"a\0b", b"\xff", b"x" * 40_000])
async def test_a_value_that_no_variable_can_hold_fails_the_start(
    process: ProcessHarness, content: bytes
) -> None:
    process.secrets["api"] = {"token": content}
    ended = await process.run(process.workload("stay", secrets=GRANTED, secret_env=(TOKEN,)))
    assert ended.exit is not None
    assert "key token of Secret api is no text" in ended.exit.problem
