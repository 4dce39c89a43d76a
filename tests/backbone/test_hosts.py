"""Durable events by WebAssembly and Rune programs, against a real backbone."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import pytest
from imagelib import rune
from raw import DEADLINE, words
from sandboxless import REPOSITORY, Program, until

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Pair

SCRIPT = """
pub fn main() {
    let nothing = crucible::take_event("notes.*", "main", None, 0.3)?;
    println!("{}", crucible::to_json(#{ message: "nothing", value: nothing })?);
    for ident in [None, Some("once"), Some("once")] {
        let sequence = crucible::put_event("notes.saved", #{ n: 1 }, ident)?;
        println!("{}", crucible::to_json(#{ message: "kept", value: sequence })?);
    }
    let done = None;
    loop {
        if let Some(event) = crucible::take_event("notes.*", "main", done, 5.0)? {
            done = Some(event.sequence);
            let told = #{ message: event.name, from: event.from, value: event.payload };
            println!("{}", crucible::to_json(told)?);
        }
    }
}
"""
# Says a line for each thing done: what it is, and a number, a subject, who put it or a payload.
MODULE = """(module
  (import "crucible" "event_put" (func $put (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "crucible" "event_take" (func $event (param i32 i32 i32 i32 i64 i32) (result i32)))
  (import "crucible" "event_sequence" (func $sequence (result i64)))
  (import "crucible" "bus_take" (func $take (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "notes.*")
  (data (i32.const 32) "notes.saved")
  (data (i32.const 48) "once")
  (data (i32.const 64) "{\\22message\\22: \\22")
  (data (i32.const 96) "\\22, \\22from\\22: \\22")
  (data (i32.const 128) "\\22, \\22value\\22: ")
  (data (i32.const 160) "}\\0a")
  (data (i32.const 176) "null")
  (data (i32.const 192) "nothing")
  (data (i32.const 208) "kept")
  (data (i32.const 224) "0")
  (func $print (param $at i32) (param $size i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $size))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
  (func $piece (param $which i32)
    (call $print (i32.const 4096) (call $take (local.get $which) (i32.const 4096) (i32.const 4096))))
  (func $keep (param $ident i32)
    (if (i32.lt_s
          (call $put
            (i32.const 32) (i32.const 11) (i32.const 176) (i32.const 4) (i32.const 48) (local.get $ident))
          (i32.const 0))
      (then (call $piece (i32.const 0)) (call $exit (i32.const 9))))
    (i32.store8 (i32.const 224) (i32.add (i32.const 48) (i32.wrap_i64 (call $sequence))))
    (call $print (i32.const 64) (i32.const 13))
    (call $print (i32.const 208) (i32.const 4))
    (call $print (i32.const 128) (i32.const 12))
    (call $print (i32.const 224) (i32.const 1))
    (call $print (i32.const 160) (i32.const 2)))
  (func (export "_start") (local $done i64) (local $code i32)
    (if (call $event (i32.const 16) (i32.const 7) (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 300))
      (then (call $exit (i32.const 8))))
    (call $print (i32.const 64) (i32.const 13))
    (call $print (i32.const 192) (i32.const 7))
    (call $print (i32.const 128) (i32.const 12))
    (call $print (i32.const 176) (i32.const 4))
    (call $print (i32.const 160) (i32.const 2))
    (call $keep (i32.const 0))
    (call $keep (i32.const 4))
    (call $keep (i32.const 4))
    (loop $forever
      (local.set $code
        (call $event
          (i32.const 16) (i32.const 7) (i32.const 0) (i32.const 0) (local.get $done) (i32.const 5000)))
      (if (i32.lt_s (local.get $code) (i32.const 0)) (then (call $exit (i32.const 7))))
      (if (local.get $code)
        (then
          (local.set $done (call $sequence))
          (call $print (i32.const 64) (i32.const 13))
          (call $piece (i32.const 1))
          (call $print (i32.const 96) (i32.const 12))
          (call $piece (i32.const 2))
          (call $print (i32.const 128) (i32.const 12))
          (call $piece (i32.const 0))
          (call $print (i32.const 160) (i32.const 2))))
      (br $forever))))"""


def command(language: str, folder: Path) -> tuple[str, ...]:
    """Return how the program is run in its host."""
    for name in ("plugin", "config", "tmp"):
        (folder / name).mkdir()
    if language == "rune":
        (folder / "plugin/main.rn").write_text(SCRIPT)
        return (str(rune.build(print)), "--root", str(folder), "/plugin/main.rn")
    (folder / "plugin/main.wat").write_text(MODULE)
    host = REPOSITORY / "controller/crucible/hosts/wasm.py"
    return (sys.executable, "-I", "-B", str(host), "--root", str(folder), "--", "/plugin/main.wat")


@pytest.mark.parametrize("language", ["wasm", "rune"])
async def test_events_are_put_and_taken_and_done_when_the_next_is_asked_for(
    pair: Pair, tmp_path: Path, language: str
) -> None:
    await pair.meet()
    await pair.backbone.make_streams("here")
    door = pair.alpha.plugin("everything", publish=("notes.*",), subscribe=("notes.*",))
    editor = await pair.beta.add("editor", publish=("notes.*",))
    words_of = command(language, tmp_path)
    program = await Program.start(words_of, door, tmp_path)
    await until(lambda: len(program.lines) == 6 or program.process.returncode is not None)
    assert program.process.returncode is None, program.errors
    nothing, *rest = program.lines
    assert nothing == {"message": "nothing", "value": None}
    assert [line["value"] for line in rest[:3]] == [1, 2, 2]
    assert [(line["message"], line["from"]) for line in rest[3:]] == [("notes.saved", "everything")] * 2
    answer = await editor.call(1, "$events.put", b'"far"', headers={"subject": "notes.read"})
    assert words(answer) == ("ANSWER", 1, "")
    await until(lambda: program.messages[-1] == "notes.read")
    assert program.lines[-1] == {"message": "notes.read", "from": "editor@beta", "value": "far"}
    await until_all_are_done(pair)
    await program.close()


async def until_all_are_done(pair: Pair) -> None:
    """Wait until the server keeps nothing: an event goes once every subscription has said that it is done."""
    manager = await pair.backbone.client("manager")
    async with asyncio.timeout(DEADLINE):
        while True:
            said = await manager.request("$JS.API.STREAM.INFO.CRUCIBLE-here", b"", DEADLINE)
            if json.loads(said.payload)["state"]["messages"] == 0:
                break
            await asyncio.sleep(0.02)
    manager.close()


@pytest.mark.parametrize("language", ["wasm", "rune"])
async def test_events_that_the_manifest_does_not_grant_are_refused(
    pair: Pair, tmp_path: Path, language: str
) -> None:
    await pair.meet()
    program = await Program.start(command(language, tmp_path), pair.alpha.plugin("everything"), tmp_path)
    assert await program.end() != 0
    assert program.lines == []
    assert dict(pair.alpha.broker.ledger.of("here", "everything").faults) == {"refused": 1}
