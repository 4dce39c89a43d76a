"""The WebAssembly host, run directly: what a program can do, and what holds it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stage import Stage

LIMIT = 16 << 20
LIMITS = ("--fuel", "50000000", "--memory", str(LIMIT), "--time", "30")
USAGE, INVALID, UNREADABLE, TRAPPED, OUT_OF_FUEL, OUT_OF_MEMORY, OUT_OF_TIME = 64, 65, 66, 70, 71, 72, 73

WASI = "wasi_snapshot_preview1"


def calling(name: str, parameters: str, body: str, more: str = "") -> str:
    """Return a module that calls one WASI function, and ends with what it leaves on the stack."""
    return f"""(module
        (import "{WASI}" "{name}" (func $call (param {parameters}) (result i32)))
        (import "{WASI}" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
        (import "{WASI}" "proc_exit" (func $proc_exit (param i32)))
        (memory (export "memory") 1)
        {more}
        (func (export "_start") {body} call $proc_exit))"""


def opening(path: str, folder: int, flags: int = 0, rights: int = 2) -> str:
    """Return a module that opens a path below a preopened folder, and ends with WASI's error number."""
    body = f"""
        (i32.const {folder}) (i32.const 1) (i32.const 1024) (i32.const {len(path.encode())})
        (i32.const {flags}) (i64.const {rights}) (i64.const 0) (i32.const 0) (i32.const 512) call $call"""
    text = f'(data (i32.const 1024) "{path}")'
    return calling("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32", body, text)


PLUGIN, CONFIG, TMP = 3, 4, 5
CREATE = 1
WRITE = 64
NOT_PERMITTED, NO_SUCH_FILE = 63, 44


def test_a_program_reads_its_files_and_its_configuration(wasm_stage: Stage) -> None:
    (wasm_stage.root / "plugin/note").write_text("one")
    (wasm_stage.root / "config/config.json").write_text("{}")
    assert wasm_stage.run("main.wat", opening("note", PLUGIN), *LIMITS).code == 0
    assert wasm_stage.run("main.wat", opening("config.json", CONFIG), *LIMITS).code == 0


def test_a_program_writes_to_tmp_alone(wasm_stage: Stage) -> None:
    for folder, name in ((PLUGIN, "plugin"), (CONFIG, "config")):
        ended = wasm_stage.run("main.wat", opening("new", folder, CREATE, WRITE))
        assert ended.code != 0, ended
        assert not (wasm_stage.root / name / "new").exists()
        (wasm_stage.root / name / "old").write_text("kept")
        assert wasm_stage.run("main.wat", opening("old", folder, 0, WRITE)).code != 0
    assert wasm_stage.run("main.wat", opening("new", TMP, CREATE, WRITE)).code == 0
    assert (wasm_stage.root / "tmp/new").exists()


@pytest.mark.parametrize(
    "path",
    [
        "../etc/passwd",
        "../../../../../../../../etc/passwd",
        "/etc/passwd",
        "out",
        "up/etc/passwd",
        "x/../../etc",
    ],
)
@pytest.mark.parametrize("folder", [PLUGIN, TMP])
def test_no_path_leads_out(wasm_stage: Stage, path: str, folder: int) -> None:
    (wasm_stage.root / "etc").mkdir()
    (wasm_stage.root / "etc/passwd").write_text("root:")
    for name in ("plugin", "tmp"):
        (wasm_stage.root / name / "out").symlink_to("/etc/passwd")
        (wasm_stage.root / name / "up").symlink_to("..")
    ended = wasm_stage.run("main.wat", opening(path, folder))
    assert ended.code in {NOT_PERMITTED, NO_SUCH_FILE}, ended


def test_there_are_three_folders_and_no_more(wasm_stage: Stage) -> None:
    assert wasm_stage.run("main.wat", opening("etc", 6)).code == 8  # no such descriptor


def test_arguments_and_variables_are_passed(wasm_stage: Stage) -> None:
    sizes = "(i32.const 0) (i32.const 4) call $call drop (i32.load (i32.const 0))"
    ended = wasm_stage.run("a.wat", calling("args_sizes_get", "i32 i32", sizes), words=("x", "y z"))
    assert ended.code == 3
    ended = wasm_stage.run("e.wat", calling("environ_sizes_get", "i32 i32", sizes))
    assert ended.code >= 3


def test_a_program_prints(wasm_stage: Stage) -> None:
    body = """(i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 6))
        (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8) call $call"""
    text = r'(data (i32.const 64) "hello\0a")'
    ended = wasm_stage.run("main.wat", calling("fd_write", "i32 i32 i32 i32", body, text))
    assert (ended.code, ended.out) == (0, "hello\n")


ENDLESS = '(module (memory (export "memory") 1) (func (export "_start") (loop $l br $l)))'


def test_an_endless_loop_runs_out_of_fuel(wasm_stage: Stage) -> None:
    ended = wasm_stage.run("main.wat", ENDLESS, *LIMITS)
    assert (ended.code, ended.why) == (OUT_OF_FUEL, "crucible-wasm: out of fuel: the limit is used up")


def test_an_endless_start_section_runs_out_of_fuel(wasm_stage: Stage) -> None:
    module = '(module (func $f (loop $l br $l)) (start $f) (func (export "_start")))'
    assert wasm_stage.run("main.wat", module, *LIMITS).code == OUT_OF_FUEL


def test_an_endless_loop_runs_out_of_time(wasm_stage: Stage) -> None:
    ended = wasm_stage.run("main.wat", ENDLESS, "--time", "0.2")
    assert (ended.code, ended.why) == (OUT_OF_TIME, "crucible-wasm: out of time: the limit is used up")


def test_time_ends_a_program_that_sleeps(wasm_stage: Stage) -> None:
    body = """(i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const 3600000000000))
        (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128) call $call"""
    ended = wasm_stage.run("main.wat", calling("poll_oneoff", "i32 i32 i32 i32", body), "--time", "0.2")
    assert (ended.code, ended.why) == (OUT_OF_TIME, "crucible-wasm: out of time: the limit is used up")


GROWING = """(module (memory (export "memory") 1) (func (export "_start")
    (loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable))"""


def test_memory_grows_to_the_limit_and_no_further(wasm_stage: Stage) -> None:
    ended = wasm_stage.run("main.wat", GROWING, *LIMITS)
    assert (ended.code, ended.why) == (
        OUT_OF_MEMORY,
        f"crucible-wasm: out of memory: it held {LIMIT} bytes of {LIMIT}",
    )


@pytest.mark.parametrize(
    "parts",
    [
        "(memory 4000)",
        "(table 100000000 funcref)",
        "(table 100000 funcref) " * 50,
    ],
)
def test_a_program_that_begins_with_more_than_the_limit_does_not_begin(wasm_stage: Stage, parts: str) -> None:
    ended = wasm_stage.run("main.wat", f'(module {parts} (func (export "_start")))', *LIMITS)
    assert (ended.code, ended.why) == (
        OUT_OF_MEMORY,
        "crucible-wasm: out of memory: the program begins with more than the limit",
    )


def test_a_second_memory_is_no_way_round_the_limit(wasm_stage: Stage) -> None:
    ended = wasm_stage.run("main.wat", '(module (memory 1) (memory 1) (func (export "_start")))', *LIMITS)
    assert ended.code == INVALID


def test_a_deep_recursion_traps(wasm_stage: Stage) -> None:
    module = """(module (func $f (param i32) (result i32)
        local.get 0 i32.const 1 i32.add call $f i32.const 1 i32.add)
        (func (export "_start") i32.const 0 call $f drop))"""
    ended = wasm_stage.run("main.wat", module, *LIMITS)
    assert ended.code == TRAPPED
    assert ended.why.startswith("crucible-wasm: trapped: stack overflow")


def test_a_trap_says_which_and_where(wasm_stage: Stage) -> None:
    module = """(module (func $divide (result i32) i32.const 1 i32.const 0 i32.div_s)
        (func (export "_start") call $divide drop))"""
    ended = wasm_stage.run("main.wat", module, *LIMITS)
    assert ended.code == TRAPPED
    assert ended.why.startswith("crucible-wasm: trapped: integer division by zero")
    assert ended.err.splitlines()[1] == "  at divide"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\0asm\1\0\0\0rest", "not valid: "),
        (b"\x7fELF\xff", "/plugin/main.wasm is neither WebAssembly nor its text format"),
        (b"hello", "not WebAssembly: expected `(`"),
        (b"", "not WebAssembly: "),
        (b'(module (func (export "_start") i32.add))', "not valid: "),
        (
            b'(module (import "env" "f" (func)) (func (export "_start")))',
            "cannot start: unknown import: `env::f`",
        ),
        (b"(module)", "the module exports no function _start"),
        (b"(component)", "the component does not export wasi:cli/run@0.2"),
        (b"(module " + b"(func (block " * 20_000, "not WebAssembly: "),
    ],
)
def test_what_is_no_program_is_told_why(wasm_stage: Stage, content: bytes, why: str) -> None:
    ended = wasm_stage.run("main.wasm", content, *LIMITS)
    assert ended.code == INVALID, ended
    assert ended.why.removeprefix("crucible-wasm: ").replace(str(wasm_stage.root), "").startswith(why)


COMPONENT = """(component
    (core module $m {memory} (func (export "run") (result i32) {body}))
    (core instance $i (instantiate $m))
    (func $run (result (result)) (canon lift (core func $i "run")))
    (instance $r (export "run" (func $run)))
    (export "wasi:cli/run@0.2.{patch}" (instance $r)))"""


@pytest.mark.parametrize("patch", [0, 3, 6])
@pytest.mark.parametrize("code", [0, 1])
def test_a_component_runs_as_a_command(wasm_stage: Stage, patch: int, code: int) -> None:
    component = COMPONENT.format(patch=patch, memory="", body=f"i32.const {code}")
    assert wasm_stage.run("main.wat", component, *LIMITS).code == code


def test_a_component_is_held_like_a_module(wasm_stage: Stage) -> None:
    endless = COMPONENT.format(patch=0, memory="", body="(loop $l br $l) unreachable")
    assert wasm_stage.run("main.wat", endless, *LIMITS).code == OUT_OF_FUEL
    assert wasm_stage.run("main.wat", endless, "--time", "0.2").code == OUT_OF_TIME
    large = COMPONENT.format(patch=0, memory="(memory 4000)", body="i32.const 0")
    assert wasm_stage.run("main.wat", large, *LIMITS).code == OUT_OF_MEMORY
    ended = wasm_stage.run("main.wat", COMPONENT.format(patch=0, memory="", body="unreachable"), *LIMITS)
    assert (ended.code, ended.why.startswith("crucible-wasm: trapped: ")) == (TRAPPED, True), ended


@pytest.mark.parametrize(
    "words",
    [[], ["--fuel"], ["--fuel", "-1", "x"], ["--time", "0", "x"], ["--time", "nan", "x"], ["--what", "x"]],
)
def test_wrong_options_are_refused(wasm_stage: Stage, words: list[str]) -> None:
    done = subprocess.run([*wasm_stage.command, *words], capture_output=True, text=True, check=False)
    assert done.returncode == USAGE
    assert "usage: crucible-wasm" in done.stderr


def test_a_program_that_is_not_there_is_named(wasm_stage: Stage) -> None:
    done = subprocess.run([*wasm_stage.command, "/plugin/none"], capture_output=True, text=True, check=False)
    assert done.returncode == UNREADABLE
    assert done.stderr == "crucible-wasm: cannot read /plugin/none: No such file or directory\n"


def test_sigterm_ends_the_first_process_of_a_container_too(wasm_stage: Stage) -> None:
    body = """(i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 3))
        (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8) call $call drop (loop $l br $l) i32.const 0"""
    text = r'(data (i32.const 64) "up\0a")'
    argv = wasm_stage.argv("main.wat", calling("fd_write", "i32 i32 i32 i32", body, text))
    inside = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child=KILL", *argv]
    with subprocess.Popen(inside, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        first = int(next(iter(children(running.pid))))
        os.kill(first, signal.SIGTERM)
        assert running.wait(60) == 143


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
