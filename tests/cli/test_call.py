"""The SDKs in real sandboxes, called from the command line: the examples, as they are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from imagelib import rune

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="plugins start with every control enforced only where root runs the controller"
)
IMAGES = Path(__file__).parents[2] / "plugin-images"


def ready(crucible: Any, eventually: Any, type_: str, *calls: tuple[str, str]) -> None:
    """Apply an example, and wait until its plugins are called."""
    applied = crucible("apply", "-f", str(IMAGES / type_ / "example-bus"), "--wait")
    assert applied.code == 0, applied.err
    for call in calls:
        eventually(
            lambda call=call: crucible("call", *call).code == 0,
            lambda call=call: (crucible("call", *call), crucible("describe", call[0].partition(".")[0])),
        )


def test_python_plugins_call_each_other_and_keep_what_they_count(crucible: Any, eventually: Any) -> None:
    ready(crucible, eventually, "python", ("tokenizer.split", '{"text": ""}'))
    text = '{"text": "to be or not to be"}'
    counted = crucible("call", "word-counter.count", text, "-o", "json")
    eventually(lambda: counted.code == 0 or crucible("call", "word-counter.count", text).code == 0, counted)
    again = crucible("call", "word-counter.count", "-", "--priority", "high", "-o", "json", stdin=text)
    assert again.code == 0, again.err
    answer = json.loads(again.out)
    assert (answer["words"], answer["different"], answer["total"] % 6) == (6, 4, 0)
    total = str(answer["total"])
    assert crucible("store", "get", "word-counter", "total").out == total
    listed = json.loads(crucible("store", "ls", "word-counter", "-o", "json").out)
    assert [one["key"] for one in listed["keys"]] == ["total"]
    assert listed["used"] < listed["size"] == 64 * 1024
    assert crucible("store", "put", "word-counter", "total", "0", "--revision", "0").code == 1
    assert crucible("store", "put", "word-counter", "raw/\u0031", "-", stdin="{").code == 0
    exported = crucible("store", "export", "word-counter").out.splitlines()
    assert [json.loads(line).get("base64") for line in exported] == ["ew==", None]
    assert crucible("store", "rm", "word-counter", "total").code == 0
    gone = crucible("store", "get", "word-counter", "total")
    assert (gone.code, "there is no key total" in gone.err) == (3, True)
    nobody = crucible("store", "get", "nobody", "total")
    assert (nobody.code, nobody.err) == (3, "error: there is no plugin nobody\n")
    assert crucible("store", "ls", "tokenizer").code == 4, "it has no store"
    assert crucible("store", "get", "word-counter").code == 2
    assert "raw/1" in crucible("store", "ls", "word-counter").out
    lines = [json.loads(line) for line in crucible("logs", "word-counter").out.splitlines()]
    assert lines[-1]["caller"] == "$host"
    assert len(lines[-1]["trace_id"]) == 32
    words = crucible("call", "tokenizer.split", '{"text": "To be"}')
    assert words.out.split() == ["[", '"to",', '"be"', "]"]


def test_javascript_plugins_call_each_other(crucible: Any, eventually: Any) -> None:
    calls = [("speller.unknown", '{"text": ""}'), ("editor.mark", '{"text": ""}')]
    ready(crucible, eventually, "javascript", *calls)
    marked = crucible("call", "editor.mark", '{"text": "to bee"}', "-o", "json")
    assert json.loads(marked.out) == {"text": "to *bee*", "unknown": ["bee"]}, marked.err


def test_a_program_in_webassembly_keeps_what_it_is_told_across_its_end(
    crucible: Any, eventually: Any
) -> None:
    ready(crucible, eventually, "wasm", ("last-note.keep", '"first"'))
    assert crucible("call", "last-note.keep", '"second"').out.strip() == "first"
    assert crucible("store", "get", "last-note", "last").out == '"second"'
    assert crucible("restart", "last-note", "--wait").code == 0
    eventually(lambda: crucible("call", "last-note.keep", '"third"').code == 0, "it is back")
    assert crucible("store", "get", "last-note", "last").out == '"third"'
    assert crucible("call", "last-note.nothing").code != 0
    items = json.loads(crucible("top", "bus", "-o", "json").out)["items"]
    (told,) = (one for one in items if one["plugin"] == "last-note")
    assert (told["connections"], told["published"] > 0, told["faults"]) == (1, True, {})
    heading, *rows = crucible("top", "bus", "-A").out.splitlines()
    assert heading.split()[:3] == ["NAMESPACE", "PLUGIN", "CONNECTIONS"]
    assert ["default", "last-note", "1"] in [row.split()[:3] for row in rows]


def test_a_script_in_rune_answers_and_counts(crucible: Any, eventually: Any) -> None:
    rune.build(print)  # the process runtime looks for it there
    ready(crucible, eventually, "rune", ("summarizer.summary", '{"text": ""}'))
    asked = '{"text": "It rains. We stay in."}'
    answer = json.loads(crucible("call", "summarizer.summary", asked, "-o", "json").out)
    assert (answer["first"], answer["sentences"]) == ("It rains", 2)
    assert crucible("store", "get", "summarizer", "total").out == str(answer["total"])
    # What it watches in its store comes to it, and it says so in its log.
    eventually(lambda: '"message":"counted"' in crucible("logs", "summarizer").out, "it is told")


def test_a_call_that_cannot_be_made_says_why_and_ends_with_its_code(
    crucible: Any, eventually: Any, manifest: Any
) -> None:
    program = (
        "from crucible_plugin import Plugin\n"
        "plugin = Plugin()\n"
        "plugin.method('say')(lambda request: request.payload)\n"
        "def memory(request):\n"
        "    with open('/proc/self/smaps_rollup') as lines:\n"
        "        return next(int(line.split()[1]) for line in lines if line.startswith('Pss_Anon:'))\n"
        "plugin.method('memory', inline=True)(memory)\n"
        "plugin.method('fail')(lambda request: 1 / 0)\n"
        "plugin.method('hang')(lambda request: plugin.wait(600))\n"
        "plugin.run()\n"
    )
    crucible("apply", "-f", manifest(program, capabilities={"bus": {}}), "--wait")
    eventually(lambda: crucible("call", "demo.say").code == 0, lambda: crucible("call", "demo.say"))
    used = int(crucible("call", "demo.memory").out)
    assert 1024 < used < 8 * 1024, "what an idle plugin shares with no other is below 5 MB; this is a floor"
    said = crucible("call", "demo.say", '"two\\nlines"')
    assert (said.out, said.err) == ("two\nlines\n", "")
    assert crucible("call", "demo.say", "-o", "json").out == "null\n"
    for words, code, text in [
        (("nobody.say",), 3, "no plugin nobody"),
        (("demo.nothing",), 3, "no method nothing"),
        (("demo.fail",), 1, "Failed: ZeroDivisionError"),
        (("demo.hang", "--timeout", "100ms"), 1, "DeadlineExceeded"),
        (("demo",), 4, "'demo' is no PLUGIN.METHOD"),
        (("../demo.say",), 4, "'../demo.say' is no PLUGIN.METHOD"),
        (("$store.get",), 4, "'$store.get' is no PLUGIN.METHOD"),
        (("demo.say", "{"), 4, "no JSON"),
        (("demo.say", "--priority", "urgent"), 2, "urgent"),
        (("demo.say", "-n", "other"), 3, "no plugin demo"),
    ]:
        ended = crucible("call", *words)
        assert (ended.code, text in ended.err) == (code, True), (words, ended)


def test_a_control_plane_without_a_bus_is_named(crucible: Any, tmp_path: Path, places: Any) -> None:
    elsewhere = tmp_path / "kubeconfig"
    elsewhere.write_text(places.kubeconfig.read_text())
    ended = crucible("call", "demo.say", "--kubeconfig", str(elsewhere))
    assert (ended.code, "--state" in ended.err) == (4, True)
