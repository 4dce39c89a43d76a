"""YAML that several readers understand differently: ours reads it as kubectl does, or refuses it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from crucible.errors import InvalidInput
from crucible.model.document import read_documents

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Tool

PLAIN = ["true", "True", "FALSE", "1", "-1", "+1", "1.5", "1e3", "0", "text", "tRue", "12:30"]
PLAIN += ["2001-01-01", "'y'", '"on"', "'1'", "''", "1.2.3", "a b", "x: [y1, n0]"]
AMBIGUOUS = ["yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF"]
AMBIGUOUS += ["017", "0o17", "0x1F", "0b11", "1_000", "08", "-017"]
LETTERS = ["y", "Y", "n", "N"]
HEAD = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
REFUSED = object()


async def kubectl_reads(kubectl: Tool, folder: Path, lines: list[str]) -> list[Any]:
    """What kubectl makes of a list's items."""
    (folder / "words.yaml").write_text(f"{HEAD}words:\n" + "".join(f"- {line}\n" for line in lines))
    dry = ("create", "--dry-run=client", "--validate=false", "-o", "json")
    found = json.loads(await kubectl.ok(*dry, "-f", str(folder / "words.yaml")))
    return list(found["words"])


def we_read(line: str) -> Any:
    try:
        (document,) = read_documents(f"{HEAD}words:\n- {line}\n".encode(), "words.yaml")
    except InvalidInput:
        return REFUSED
    return document.content["words"][0]


async def test_what_is_plain_is_read_as_kubectl_reads_it(kubectl: Tool, tmp_path: Path) -> None:
    theirs = await kubectl_reads(kubectl, tmp_path, PLAIN)
    for line, value in zip(PLAIN, theirs, strict=True):
        ours = we_read(line)
        assert ours == value, line
        assert isinstance(ours, bool) == isinstance(value, bool), line


async def test_words_that_kubectl_takes_for_something_else_are_refused(kubectl: Tool, tmp_path: Path) -> None:
    theirs = await kubectl_reads(kubectl, tmp_path, AMBIGUOUS)
    assert theirs[:6] == [True, True, True, False, False, False]
    assert theirs[12:15] == [15, 15, 31]
    for line in AMBIGUOUS:
        assert we_read(line) is REFUSED, line
        assert we_read(f"{{{line}: k}}") is REFUSED, f"{line} as a key"


@pytest.mark.parametrize("form", ["{}", "{{{}: k}}"], ids=["value", "key"])
async def test_the_letters_that_kubectl_takes_for_truth_values_are_not_text(
    kubectl: Tool, tmp_path: Path, form: str
) -> None:
    lines = [form.format(letter) for letter in LETTERS]
    theirs = await kubectl_reads(kubectl, tmp_path, lines)
    for line, value in zip(lines, theirs, strict=True):
        assert we_read(line) in (REFUSED, value), line


async def test_keys_are_read_as_kubectl_reads_them(kubectl: Tool, tmp_path: Path) -> None:
    lines = [f"{{{word}: k}}" for word in ("text", "'y'", '"1"', "tRue", "a.b/c")]
    theirs = await kubectl_reads(kubectl, tmp_path, lines)
    assert [we_read(line) for line in lines] == theirs
