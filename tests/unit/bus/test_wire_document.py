"""The examples in docs/wire.md, byte for byte."""

import re
from pathlib import Path

import pytest

from crucible.bus import wire

DOCUMENT = Path(__file__).parents[3] / "docs" / "wire.md"
EXAMPLES = re.findall(r"```wire\n(.*?)\n```", DOCUMENT.read_text(), re.DOTALL)


def parse(line: str) -> wire.Frame:
    """Read ``CALL id=1 name=a.b header:key=value payload=…`` (a payload goes to the line's end)."""
    words, _, payload = line.partition(" payload=")
    kind, *fields = words.split(" ")
    values = dict(field.split("=", 1) for field in fields)
    number = re.fullmatch(r"([0-9a-f]{8}) \(\d+\)", payload)
    return wire.Frame(
        kind=wire.Kind[kind],
        id=int(values.get("id", 0)),
        name=values.get("name", ""),
        payload=bytes.fromhex(number[1]) if number else payload.encode(),
        headers={key.removeprefix("header:"): text for key, text in values.items() if ":" in key},
        priority=int(values.get("priority", wire.Priority.NORMAL)),
        deadline=int(values.get("deadline", 0)),
        flags=int(values.get("flags", 0)),
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.split(" payload")[0][:60])
def test_every_example_is_what_the_codec_writes_and_reads(example: str) -> None:
    line, *dump = example.splitlines()
    data = bytes.fromhex("".join(row.split("  ")[0] for row in dump))
    assert wire.encode(parse(line)) == data
    assert list(wire.Decoder().feed(data)) == [parse(line)]


def test_every_kind_has_an_example() -> None:
    assert {example.split()[0] for example in EXAMPLES} == set(wire.Kind.__members__)


def test_every_code_and_limit_is_in_the_document() -> None:
    text = DOCUMENT.read_text()
    assert [code for code in wire.Code if f"`{code}`" not in text] == []
    limits = (wire.LENGTH_LIMIT, wire.LONGEST_DEADLINE, wire.PAYLOAD_LIMIT)
    assert [limit for limit in limits if f"{limit:,}" not in text] == []
