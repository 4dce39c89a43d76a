"""Manifests that a stranger wrote: what is read, and how the rest is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crucible.errors import InvalidInput
from crucible.model.document import DEPTH_LIMIT, SIZE_LIMIT, read_documents


def read(text: str | bytes, file: str = "p.yaml") -> Any:
    data = text.encode() if isinstance(text, str) else text
    (document,) = read_documents(data, file)
    return document.content


def refusal(text: str | bytes, file: str = "p.yaml") -> str:
    with pytest.raises(InvalidInput) as caught:
        read_documents(text.encode() if isinstance(text, str) else text, file)
    return str(caught.value)


def test_values_are_read_as_every_reader_reads_them() -> None:
    text = """
    text: word
    quoted: "yes"
    block: |
      two
      lines
    number: 42
    negative: -7
    part: 0.5
    power: 1e3
    truth: true
    nothing: null
    version: 1.4.2
    date: 2020-01-02
    clock: 12:30
    list: [a, 1, {inner: x}]
    """
    assert read(text) == {
        "text": "word",
        "quoted": "yes",
        "block": "two\nlines\n",
        "number": 42,
        "negative": -7,
        "part": 0.5,
        "power": 1000.0,
        "truth": True,
        "nothing": None,
        "version": "1.4.2",
        "date": "2020-01-02",
        "clock": "12:30",
        "list": ["a", 1, {"inner": "x"}],
    }


def test_several_documents_keep_their_lines_and_empty_ones_are_passed_over() -> None:
    text = "---\n# nothing\n---\na: 1\n---\n\nb:\n  - c: 2\n---\n"
    first, second = read_documents(text.encode(), "two.yaml")
    assert (first.content, first.place_of("")) == ({"a": 1}, "two.yaml:4")
    assert (second.content, second.place_of("b[0].c")) == ({"b": [{"c": 2}]}, "two.yaml:8")


def test_a_field_that_is_missing_is_placed_where_its_surroundings_are() -> None:
    (document,) = read_documents(b"spec:\n  resources:\n    cpu: 1\n", "p.yaml")
    assert document.place_of("spec.resources.memory") == "p.yaml:2"
    assert document.place_of("metadata.name") == "p.yaml:1"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a is given twice, first on line 1"),
        ("spec:\n  x:\n    k: 1\n    k: 2\n", 4, "spec.x.k is given twice"),
        ("a: [1, 2\nb: 3\n", 2, "is no YAML"),
        ("a: 'x\n", 2, "is no YAML"),
        ("\tb: 1\n", 1, "is no YAML"),
        ("a:\n  sub: yes\n", 2, 'yes is a truth value to some readers and a word to others: write "yes"'),
        ("on: 1\n", 1, "on is a truth value"),
        ("a: 0777\n", 1, "is not the same number to every reader"),
        ("a: 0x1F\n", 1, "is not the same number"),
        ("a: 1_000\n", 1, "is not the same number"),
        ("a: .inf\n", 1, "is not the same number"),
        ("a: 1e999\n", 1, "too large"),
        ("a: 99999999999999999999\n", 1, "does not fit into 64 bits"),
        (f"a: {'9' * 100_000}\n", 1, "does not fit into 64 bits"),
        ("a: !!python/object/apply:os.system [id]\n", 1, "tag"),
        ("a: !!binary aGk=\n", 1, "tag"),
        ("base: &b {x: 1}\na:\n  <<: *b\n", 3, "merge keys"),
        ("a: *missing\n", 1, "names nothing"),
        ("a: &a [*a]\n", 1, "names nothing"),
        ("1: x\n", 1, "write it in quotes"),
        ("? [a]\n: b\n", 1, "a key is no text"),
        ("- a\n- b\n", 1, "holds a list"),
        ("just words\n", 1, "holds a single value"),
        ("a: " + "[" * 500 + "]" * 500, 1, f"deeper than {DEPTH_LIMIT} levels"),
        ("[" * 500_000, 1, "deeper than"),
        ("{a: " * 200_000, 1, "deeper than"),
    ],
)
def test_a_manifest_that_could_be_misread_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    message = refusal(text)
    assert message.startswith(f"p.yaml:{line}: ")
    assert words in message


def test_a_small_file_that_unfolds_into_a_huge_one_is_refused() -> None:
    rows = ["a0: &a0 [" + ", ".join(["lol"] * 10) + "]"]
    rows += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 10)]
    assert "unfolds into more than 16 MiB" in refusal("\n".join(rows))


def test_one_long_text_repeated_by_aliases_is_refused() -> None:
    text = f"a: &a {'x' * 500_000}\nb: [{', '.join(['*a'] * 40)}]\n"
    assert "unfolds" in refusal(text)


def test_many_fields_below_one_endless_key_are_refused() -> None:
    key = f"? {'k' * 500_000}\n:\n"  # written so, because a key before a colon may not be that long
    assert "unfolds" in refusal(key + "".join(f"  a{n}: 1\n" for n in range(30_000)))


def test_a_large_honest_file_is_read() -> None:
    text = "spec:\n  source:\n    inline:\n" + "".join(
        f"      file-{n}.txt: {'x' * 80}\n" for n in range(9_000)
    )
    assert len(text) > 900_000
    assert len(read(text)["spec"]["source"]["inline"]) == 9_000


def test_aliases_within_bounds_mean_what_they_stand_for() -> None:
    assert read("a: &x {k: [1]}\nb: *x\n") == {"a": {"k": [1]}, "b": {"k": [1]}}


def test_ten_megabytes_are_refused_without_being_read() -> None:
    assert "is larger than 1 MiB" in refusal(b"[" * (SIZE_LIMIT + 1))


@pytest.mark.parametrize("text", ["", "# only a remark\n", "---\n---\n"])
def test_a_file_without_a_manifest_is_refused(text: str) -> None:
    assert refusal(text) == "p.yaml: holds no manifest: it is empty"


def test_text_that_is_no_utf8_is_refused_with_its_line() -> None:
    assert refusal(b"a: 1\nb: \xff\n").startswith("p.yaml:2: is no UTF-8 text")


def test_control_characters_are_refused() -> None:
    assert "is no YAML" in refusal(b"a: \x00\x1b[31m\n")


def test_json_is_read_with_tabs_escapes_and_surrogate_pairs() -> None:
    assert read('{\t"a": "\\ud83d\\ude00\\/",\n\t"b": [1.5, null]}', "p.json") == {
        "a": "😀/",
        "b": [1.5, None],
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ('{"a": 1,\n"b" 2}', "p.json:2: is no JSON"),
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": 1e999}', "too large"),
        ('{"a": 99999999999999999999}', "64 bits"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "deeper than"),
        ('{"a": ' + "[" * 400_000, "deeper than"),
    ],
)
def test_json_is_as_strict(text: str, words: str) -> None:
    assert words in refusal(text, "p.json")


def test_yaml_in_braces_is_still_yaml() -> None:
    assert read("{a: 1, b: [x]}") == {"a": 1, "b": ["x"]}


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(min_size=1, max_size=8), plain, min_size=1, max_size=4))
def test_what_a_yaml_writer_wrote_is_read_back(value: dict[str, object]) -> None:
    written = yaml.safe_dump(value, allow_unicode=False)
    try:
        assert read(written) == value
    except InvalidInput as error:
        # The writer leaves words unquoted that only its own rules keep apart from others.
        assert "truth value" in str(error) or "same number" in str(error)  # noqa: PT017


@given(st.dictionaries(st.text(max_size=8), plain, min_size=1, max_size=4))
def test_what_a_json_writer_wrote_is_read_back(value: dict[str, object]) -> None:
    assert read(json.dumps(value), "p.json") == value


@given(st.binary(max_size=300))
def test_whatever_the_bytes_the_answer_is_documents_or_a_refusal(data: bytes) -> None:
    try:
        assert read_documents(data, "p.yaml")
    except InvalidInput as error:
        assert str(error).startswith("p.yaml")  # noqa: PT017
