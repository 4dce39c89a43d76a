"""The Rune host, run directly: what a script can do, and what holds it."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from imagelib.tree import is_elf, needed

from crucible.runtimes.process import elf

if TYPE_CHECKING:
    from pathlib import Path

    from stage import Stage

LIMITS = ("--fuel", "5000000", "--memory", str(32 << 20), "--time", "30")
USAGE, INVALID, UNREADABLE, FAILED, OUT_OF_FUEL, OUT_OF_MEMORY, OUT_OF_TIME = 64, 65, 66, 70, 71, 72, 73


def test_a_script_sees_its_arguments_configuration_and_environment(rune_stage: Stage) -> None:
    (rune_stage.root / "config/config.json").write_text(json.dumps({"top": [1, 2.5, "x", None, True]}))
    script = """
        pub fn main(arguments) {
            println!("{:?} {:?}", arguments, crucible::config()?.top);
            println!("{:?} {:?}", crucible::env("GREETING"), crucible::env("NOT_THERE"));
            println!("{}", crucible::to_json(#{a: [1, ()]})?);
            println!("{:?}", crucible::from_json("{"));
            Ok(())
        }"""
    ended = rune_stage.run("main.rn", script, *LIMITS, words=("a b", "c"))
    assert ended.code == 0, ended
    assert ended.out.splitlines()[:3] == [
        '["a b", "c"] [1, 2.5, "x", (), true]',
        'Some("hello") None',
        '{"a":[1,null]}',
    ]
    assert ended.out.splitlines()[3].startswith('Err("EOF while parsing')


def test_a_script_reads_its_files_and_writes_to_tmp_alone(rune_stage: Stage) -> None:
    (rune_stage.root / "plugin/notes").mkdir()
    (rune_stage.root / "plugin/notes/one.txt").write_text("one")
    script = """
        pub fn main() {
            println!("{}", crucible::read("notes/one.txt")?);
            println!("{:?}", crucible::list("/plugin/notes")?);
            crucible::write("/tmp/kept", "two")?;
            println!("{}", crucible::read("/tmp/kept")?);
            crucible::write("/plugin/new", "three")
        }"""
    ended = rune_stage.run("main.rn", script)
    assert ended.out.splitlines() == ["one", '["one.txt"]', "two"]
    assert (ended.code, ended.why) == (
        1,
        "crucible-rune: main returned an error: /plugin/new: not below /tmp",
    )
    assert not (rune_stage.root / "plugin/new").exists()


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/plugin/../etc/passwd",
        "/plugin/../../../../../../../../etc/passwd",
        "../../../../../../../../../../etc/passwd",
        "/plugin/out",
        "/plugin/up/etc/passwd",
        "/tmp/../config/../etc/passwd",
        "/plugin//etc/passwd",
        "",
        "/",
    ],
)
def test_no_path_leads_out(rune_stage: Stage, path: str) -> None:
    (rune_stage.root / "plugin/out").symlink_to("/etc/passwd")
    (rune_stage.root / "plugin/up").symlink_to("/")
    (rune_stage.root / "etc").mkdir()
    (rune_stage.root / "etc/passwd").write_text("root:")
    script = f'pub fn main() {{ println!("{{}}", crucible::read("{path}")?); Ok(()) }}'
    ended = rune_stage.run("main.rn", script)
    assert ended.code == 1, ended
    assert "root:" not in ended.out


def test_a_pipe_in_tmp_holds_nobody_up(rune_stage: Stage) -> None:
    subprocess.run(["mkfifo", rune_stage.root / "tmp/pipe"], check=True)
    ended = rune_stage.run("main.rn", 'pub fn main() { crucible::read("/tmp/pipe") }')
    assert ended.why.endswith("/tmp/pipe: not a regular file")


@pytest.mark.parametrize(
    ("result", "code"),
    [("3", 3), ("()", 0), ('"text"', 0), ("Ok(4)", 4), ('Err("no")', 1), ("crucible::exit(9)", 9), ("-1", 0)],
)
def test_what_main_returns_is_the_exit_code(rune_stage: Stage, result: str, code: int) -> None:
    assert rune_stage.run("main.rn", f"pub fn main() {{ {result} }}").code == code


def test_an_async_main_runs(rune_stage: Stage) -> None:
    script = "async fn half(x) { x / 2 } pub async fn main() { half(10).await }"
    assert rune_stage.run("main.rn", script, *LIMITS).code == 5


@pytest.mark.parametrize(
    "script",
    [
        "pub fn main() { loop {} }",
        "pub async fn main() { loop {} }",
        # Code that the library calls back.
        "pub fn main() { [2, 1].sort_by(|a, b| { loop {} }); }",
        "pub fn main() { [2, 1].sort_by(|a, b| { [2, 1].sort_by(|a, b| { loop {} }); a.cmp(b) }); }",
        "pub fn main() { [1].iter().map(|x| { loop {} }).count() }",
        "fn again() { loop { yield 1; } } pub fn main() { for x in again() {} }",
        "async fn again() { loop {} } pub async fn main() { again().await }",
    ],
)
def test_an_endless_loop_runs_out_of_fuel(rune_stage: Stage, script: str) -> None:
    ended = rune_stage.run("main.rn", script, *LIMITS)
    assert (ended.code, ended.why) == (OUT_OF_FUEL, "crucible-rune: out of fuel: the limit is used up"), ended


def test_fuel_that_suffices_is_not_noticed(rune_stage: Stage) -> None:
    script = """
        pub fn main() {
            let numbers = [];
            for number in 0..1000 { numbers.push(1000 - number); }
            for round in 0..20 { numbers.sort_by(|a, b| a.cmp(b)); }
            numbers[0]
        }"""
    assert rune_stage.run("main.rn", script, "--fuel", "1000000").code == 1


def test_awaited_code_may_use_more_than_a_slice(rune_stage: Stage) -> None:
    script = """
        async fn count() { let n = 0; while n < 50000 { n += 1; } n }
        pub async fn main() { count().await / 10000 }"""
    assert rune_stage.run("main.rn", script, "--fuel", "5000000").code == 5


@pytest.mark.parametrize(
    "script",
    [
        "pub fn main() { let kept = []; loop { kept.push([1, 2, 3]); } }",
        'pub fn main() { let text = "x"; loop { text = text + text; } }',
        "pub fn main() { let kept = #{}; let n = 0; loop { n += 1; kept.insert(`${n}`, n); } }",
        "fn deeper(n) { deeper(n + 1) + 1 } pub fn main() { deeper(0) }",
        "pub fn main() { let nested = []; loop { nested = [nested]; } }",
        'pub fn main() { crucible::from_json("[" + crucible::read("/tmp/big")? + "1]") }',
    ],
)
def test_a_memory_bomb_runs_out_of_memory(rune_stage: Stage, script: str) -> None:
    (rune_stage.root / "tmp/big").write_text("1," * (8 << 20))
    ended = rune_stage.run("main.rn", script, "--memory", str(32 << 20), "--time", "30")
    assert ended.code == OUT_OF_MEMORY, ended
    assert ended.why.startswith("crucible-rune: out of memory: the limit is used up")


@pytest.mark.parametrize(
    "script",
    [
        "pub fn main() { (0..9223372036854775807).iter().count() }",  # in the library, where no fuel is used
        "pub fn main() { crucible::sleep(3600.0) }",
        "pub fn main() { while !crucible::wait(3600.0) {} }",
    ],
)
def test_time_ends_what_uses_no_fuel(rune_stage: Stage, script: str) -> None:
    ended = rune_stage.run("main.rn", script, "--fuel", "1000000", "--time", "0.2")
    assert (ended.code, ended.why) == (OUT_OF_TIME, "crucible-rune: out of time: the limit is used up")


def test_a_panic_says_where_and_through_what(rune_stage: Stage) -> None:
    script = 'fn inner(x) {\n    panic!("boom {}", x)\n}\npub fn main() {\n    inner(1);\n}\n'
    ended = rune_stage.run("main.rn", script)
    assert (ended.code, ended.err.splitlines()[0]) == (FAILED, "crucible-rune: Panicked: boom 1")
    assert [line.strip() for line in ended.err.splitlines()[1:]] == [
        "at /plugin/main.rn:2:5, in inner",
        "at /plugin/main.rn:4:1, in main",
    ]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("pub fn main() {\n  foo(;\n}", "/plugin/main.rn:2:7: Expected expression but got `;`"),
        ("fn helper() {}", "the script has no `pub fn main(arguments)`"),
        ("pub fn main(a, b) {}", "the script has no `pub fn main(arguments)`"),
        (
            "pub fn main() { " + "(" * 100_000 + "1" + ")" * 100_000 + " }",
            "out of stack: the script is nested",
        ),
        ("pub fn main() { " + "!" * 500_000 + "true }", "out of stack: "),
    ],
)
def test_a_script_that_does_not_compile_is_told_why(rune_stage: Stage, script: str, why: str) -> None:
    ended = rune_stage.run("main.rn", script)
    assert ended.code == INVALID, ended
    assert ended.why.startswith(f"crucible-rune: {why}")


def test_a_huge_script_is_held_while_it_compiles(rune_stage: Stage) -> None:
    script = "pub fn main() { [" + "1," * 3_000_000 + "1]; }"
    ended = rune_stage.run("main.rn", script, "--memory", str(64 << 20))
    assert ended.code == OUT_OF_MEMORY, ended


def test_values_nested_too_deeply_to_print_end_the_script_alone(rune_stage: Stage) -> None:
    script = "pub fn main() { let nested = []; for n in 0..200000 { nested = [nested]; } dbg!(nested); }"
    ended = rune_stage.run("main.rn", script)
    assert (ended.code, ended.why) == (FAILED, "crucible-rune: out of stack: values nested too deeply"), ended


@pytest.mark.parametrize(
    "words",
    [[], ["--fuel"], ["--fuel", "many", "x"], ["--time", "-1", "x"], ["--time", "nan", "x"], ["--what", "x"]],
)
def test_wrong_options_are_refused(rune_host: Path, words: list[str]) -> None:
    done = subprocess.run([rune_host, *words], capture_output=True, text=True, check=False)
    assert done.returncode == USAGE
    assert "usage: crucible-rune" in done.stderr


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_script_that_cannot_be_read_is_named(rune_stage: Stage, content: bytes | None) -> None:
    argv = rune_stage.argv("main.rn", content or b"")
    if content is None:
        (rune_stage.root / "plugin/main.rn").unlink()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == UNREADABLE
    assert done.stderr.startswith("crucible-rune: cannot read /plugin/main.rn: ")


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ('pub fn main() { println!("up"); loop { crucible::sleep(3600.0); } }', 143),
        ('pub fn main() { println!("up"); loop {} }', 143),
        ('pub fn main() { println!("up"); while !crucible::wait(3600.0) {} println!("bye"); 7 }', 7),
    ],
)
def test_sigterm_ends_a_script_or_the_wait_of_one_that_waits(
    rune_stage: Stage, script: str, code: int
) -> None:
    with subprocess.Popen(rune_stage.argv("main.rn", script), stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        running.send_signal(signal.SIGTERM)
        rest = running.stdout.read()
        # The one that waits may not have begun to when it is asked: it is then ended like any other.
        assert running.wait(60) in {code, 143}
        assert rest in {"", "bye\n"}


def test_the_program_needs_no_library_of_the_host(rune_host: Path) -> None:
    assert is_elf(rune_host)
    assert elf.loader(rune_host) is None
    assert needed(rune_host) == ()
