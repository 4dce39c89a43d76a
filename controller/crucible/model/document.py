"""Reading manifests that a stranger may have written: YAML or JSON, strictly, within bounds.

The reader accepts what every reader of Kubernetes manifests understands the same way, and refuses the rest
with the place and the fix: a key given twice, a word that is a truth value to some readers and text to
others, numbers that JSON cannot hold, tags, merge keys, and text that unfolds into far more than it is.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

import yaml

from crucible.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SIZE_LIMIT: Final = 2**20
"""Bytes of one file."""
DEPTH_LIMIT: Final = 64
"""Levels of lists and mappings inside each other."""
WEIGHT_LIMIT: Final = 16 * 2**20
"""Characters and values of one file once its aliases are written out, and each under its full path."""

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTH: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_AMBIGUOUS_WORD: Final = re.compile(r"(?i)y|n|yes|no|on|off")
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_DECIMAL: Final = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_AMBIGUOUS_NUMBER: Final = re.compile(
    r"[-+]?(0[0-9_]+|0[bB][01_]+|0[xX][0-9a-fA-F_]+|0o[0-7]+|[0-9][0-9_]*_[0-9_]*|\.(inf|Inf|INF)|\.(nan|NaN|NAN))"
)
_INTEGER_BITS: Final = 63
_TEXT_TAGS: Final = frozenset({None, "!", "tag:yaml.org,2002:str"})


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file.

    Attributes:
        file: what to call the file in a message.
        line: where the document begins, from 1; None where the reader cannot tell.
        content: the mapping it holds.
        lines: the line of each field, by its path as in ``spec.env[0].name``.
    """

    file: str
    line: int | None
    content: dict[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)

    def place_of(self, path: str) -> str:
        """Return ``file:line`` of a field, or of the nearest one around it that was written."""
        while path:
            if path in self.lines:
                return f"{self.file}:{self.lines[path]}"
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.file if self.line is None else f"{self.file}:{self.line}"


def is_only_text_in_quotes(text: str) -> bool:
    """Whether a text, written without quotes, would be read as something else, or be refused."""
    return (
        text in _NULL
        or text in _TRUTH
        or any(form.fullmatch(text) for form in (_AMBIGUOUS_WORD, _AMBIGUOUS_NUMBER, _INTEGER, _DECIMAL))
    )


def read_documents(data: bytes, file: str) -> tuple[Document, ...]:
    """Read every document of a file; empty ones are passed over.

    Args:
        data: the file's bytes; one byte more than :data:`SIZE_LIMIT` is enough to have it refused.
        file: what to call it in a message.

    Raises:
        InvalidInput: with file, line where it is known, what is wrong, and the fix.
    """
    if len(data) > SIZE_LIMIT:
        raise InvalidInput(
            f"{file}: is larger than {SIZE_LIMIT // 2**20} MiB: "
            "split it, or move the plugin's files into a folder and name that in spec.source.path"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInput(f"{file}:{line}: is no UTF-8 text: save it as UTF-8") from None
    found = _read_json(text, file) if text.lstrip().startswith("{") else None
    documents = found or tuple(_YamlReader(file).documents(text))
    if not documents:
        raise InvalidInput(f"{file}: holds no manifest: it is empty")
    return documents


def _read_json(text: str, file: str) -> tuple[Document, ...] | None:
    """Read a JSON file; None when it is not one, but may be YAML."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            names = [name for name, _ in items]
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidInput(f"{file}: the key {twice!r} is given twice in one object: keep one")
        return found

    def refuse(constant: str) -> NoReturn:
        raise InvalidInput(f"{file}: {constant} is no JSON number: write a finite one")

    try:
        content = json.loads(text, object_pairs_hook=pairs, parse_constant=refuse)
    except RecursionError:
        raise InvalidInput(f"{file}: is nested deeper than {DEPTH_LIMIT} levels: flatten it") from None
    except ValueError as error:
        if file.endswith(".json"):
            raise InvalidInput(f"{_json_place(file, error)}: is no JSON: {error}") from None
        return None
    _check_json(content, file, 1)
    return (Document(file, 1, content),)


def _json_place(file: str, error: ValueError) -> str:
    return f"{file}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else file


def _check_json(value: object, file: str, depth: int) -> None:
    if depth > DEPTH_LIMIT:
        raise InvalidInput(f"{file}: is nested deeper than {DEPTH_LIMIT} levels: flatten it")
    if isinstance(value, int) and value.bit_length() > _INTEGER_BITS:
        raise InvalidInput(f"{file}: a number does not fit into 64 bits: write it in quotes")
    if isinstance(value, float) and value in {float("inf"), float("-inf")}:
        raise InvalidInput(f"{file}: a number is too large: write it in quotes")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        _check_json(item, file, depth + 1)


class _YamlReader:
    """Builds values from the parser's events, one by one: nothing is unfolded before it is counted."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._weight = 0
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._lines: dict[str, int] = {}

    def documents(self, text: str) -> Iterator[Document]:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            yield from self._documents(yaml.parse(text, Loader=loader))
        except yaml.MarkedYAMLError as error:
            line = "" if error.problem_mark is None else f":{error.problem_mark.line + 1}"
            what = " ".join(part for part in (error.context, error.problem) if part)
            raise InvalidInput(f"{self._file}{line}: is no YAML: {what}") from None
        except yaml.YAMLError as error:
            raise InvalidInput(f"{self._file}: is no YAML: {' '.join(str(error).split())}") from None

    def _documents(self, events: Iterator[yaml.Event]) -> Iterator[Document]:
        for event in events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            self._anchors, self._lines = {}, {}
            first = next(events)
            content = self._value(first, events, "", 1)
            if content is None:
                continue
            if not isinstance(content, dict):
                kind = "a list" if isinstance(content, list) else "a single value"
                self._refuse(
                    first, f"holds {kind}: a manifest is a mapping that begins with apiVersion and kind"
                )
            yield Document(self._file, _line(first), content, self._lines)

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], path: str, depth: int) -> Any:  # noqa: ANN401 - whatever was written
        if depth > DEPTH_LIMIT:
            self._refuse(event, f"is nested deeper than {DEPTH_LIMIT} levels: flatten it")
        value: Any
        before = self._weight
        self._weigh(event, 1)
        match event:
            case yaml.AliasEvent():
                return self._alias(event)
            case yaml.ScalarEvent():
                self._weigh(event, len(event.value))
                value = self._scalar(event)
            case yaml.SequenceStartEvent():
                self._check_tag(event, "tag:yaml.org,2002:seq")
                value = self._sequence(events, path, depth)
            case yaml.MappingStartEvent():
                self._check_tag(event, "tag:yaml.org,2002:map")
                value = self._mapping(events, path, depth)
            case _:
                self._refuse(event, "ends too early")
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._weight - before)
        return value

    def _alias(self, event: yaml.AliasEvent) -> Any:  # noqa: ANN401
        if event.anchor not in self._anchors:
            self._refuse(event, f"the alias *{event.anchor} names nothing that was written before it")
        value, weight = self._anchors[event.anchor]
        self._weigh(event, weight)
        return value

    def _sequence(self, events: Iterator[yaml.Event], path: str, depth: int) -> list[Any]:
        items: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            here = f"{path}[{len(items)}]"
            self._weigh(event, len(here))
            self._lines[here] = _line(event)
            items.append(self._value(event, events, here, depth + 1))
        return items

    def _mapping(self, events: Iterator[yaml.Event], path: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._key(event)
            self._weigh(event, len(path) + len(key))
            here = f"{path}.{key}" if path else key
            if key in found:
                first = self._lines[here]
                self._refuse(event, f"{here} is given twice, first on line {first}: keep one")
            self._lines[here] = _line(event)
            found[key] = self._value(next(events), events, here, depth + 1)
        return found

    def _key(self, event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self._refuse(event, "a key is no text: write a word before the ':'")
        self._weigh(event, len(event.value))
        if event.value == "<<" and event.implicit[0]:
            self._refuse(event, "merge keys ('<<') are not read the same everywhere: write the fields out")
        key = self._scalar(event)
        if not isinstance(key, str):
            self._refuse(event, f"the key {event.value} is no text: write it in quotes")
        return key

    def _scalar(self, event: yaml.ScalarEvent) -> str | float | bool | None:
        text: str = event.value
        if event.tag not in _TEXT_TAGS:
            self._refuse(event, f"the tag {event.tag} is not supported: leave it out")
        if not event.implicit[0] or event.tag is not None:
            return text
        if text in _NULL:
            return None
        if text in _TRUTH:
            return _TRUTH[text]
        if _AMBIGUOUS_WORD.fullmatch(text):
            self._refuse(
                event,
                f"{text} is a truth value to some readers and a word to others: "
                f'write "{text}" in quotes, or true or false',
            )
        if _AMBIGUOUS_NUMBER.fullmatch(text):
            self._refuse(
                event,
                f"{text} is not the same number to every reader: write a plain decimal one, or quote it",
            )
        return self._number(event, text)

    def _number(self, event: yaml.ScalarEvent, text: str) -> str | float:
        if _INTEGER.fullmatch(text):
            # Twenty characters hold every 64-bit number; converting longer text is slow on purpose in Python.
            if len(text) > 20 or int(text).bit_length() > _INTEGER_BITS:  # noqa: PLR2004
                self._refuse(event, "a number does not fit into 64 bits: write it in quotes")
            return int(text)
        if _DECIMAL.fullmatch(text):
            number = float(text)
            if number in {float("inf"), float("-inf")}:
                self._refuse(event, "a number is too large: write it in quotes")
            return number
        return text

    def _check_tag(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent, own: str) -> None:
        if event.tag not in {None, "!", own}:
            self._refuse(event, f"the tag {event.tag} is not supported: leave it out")

    def _weigh(self, event: yaml.Event, weight: int) -> None:
        self._weight += weight
        if self._weight > WEIGHT_LIMIT:
            self._refuse(
                event,
                f"unfolds into more than {WEIGHT_LIMIT // 2**20} MiB: write it without aliases, and shorter",
            )

    def _refuse(self, event: yaml.Event, what: str) -> NoReturn:
        raise InvalidInput(f"{self._file}:{_line(event)}: {what}")


def _line(event: yaml.Event) -> int:
    """Return the line an event begins on, from 1."""
    return 1 if event.start_mark is None else event.start_mark.line + 1
