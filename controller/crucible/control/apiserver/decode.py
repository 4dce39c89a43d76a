"""Request bodies: JSON, YAML and protobuf to decoded objects, within limits."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import yaml

from .protobuf import MAGIC, decode_protobuf
from .status import ApiError, bad_request

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from .jsontypes import Json

PROTOBUF: Final = "application/vnd.kubernetes.protobuf"
MAX_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded body and the fields that were said twice, as paths."""

    value: Json
    duplicates: tuple[str, ...] = ()


def decode_body(raw: bytes, media_type: str, max_depth: int) -> Decoded:
    """Decode a body of a given media type (without parameters); an empty type means JSON.

    Raises:
        ApiError: 400 for what cannot be read, 415 for a media type that is not served.
    """
    if media_type == PROTOBUF or raw.startswith(MAGIC):
        return Decoded(decode_protobuf(raw))
    if media_type.endswith("yaml"):
        return decode_json_or_yaml(raw, max_depth)
    if media_type in {"", "*/*"} or media_type.endswith("json"):
        return decode_json(raw, max_depth)
    raise unsupported_media(("application/json", "application/yaml", PROTOBUF))


def unsupported_media(accepted: tuple[str, ...]) -> ApiError:
    """415 with the list that clients print."""
    listed = ", ".join(accepted)
    message = f"the body of the request was in an unknown format - accepted media types include: {listed}"
    return ApiError(415, "UnsupportedMediaType", message)


def decode_json(raw: bytes, max_depth: int) -> Decoded:
    """Decode JSON; the last of repeated fields counts, and all repeated ones are reported.

    Raises:
        ApiError: 400, it is not JSON or is nested too deeply.
    """
    twice = False

    def pairs(items: list[tuple[str, Json]]) -> Json:
        nonlocal twice
        found = dict(items)
        twice = twice or len(found) != len(items)
        return found

    value = _loaded(raw, pairs)
    _check_depth(value, raw, max_depth)
    if not twice:
        return Decoded(value)
    return Decoded(value, tuple(_repeated(_loaded(raw, _Pairs), "")))


class _Pairs(list[Any]):
    """An object as its pairs, told apart from a list."""


def _loaded(raw: bytes, hook: Callable[[list[tuple[str, Json]]], Json]) -> Json:
    try:
        return json.loads(raw, object_pairs_hook=hook, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise bad_request(f"the object provided is unrecognized (must be of type JSON): {what}") from error


def _no_constant(name: str) -> Json:
    raise ValueError(f"invalid character in {name}")


def _repeated(value: Json, path: str) -> list[str]:
    found: list[str] = []
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, item in value:
            where = f"{path}.{key}" if path else key
            if key in seen:
                found.append(where)
            seen.add(key)
            found += _repeated(item, where)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            found += _repeated(item, f"{path}[{at}]")
    return list(dict.fromkeys(found))


def _check_depth(value: Json, raw: bytes, limit: int) -> None:
    if raw.count(b"{") + raw.count(b"[") <= limit:
        return
    level: list[Json] = [value]
    for _ in range(limit + 1):
        level = [item for parent in level if isinstance(parent, dict | list) for item in _parts(parent)]
        if not level:
            return
    raise bad_request(f"the object provided is nested more than {limit} levels deep")


def _parts(parent: Json) -> list[Json]:
    return list(parent.values()) if isinstance(parent, dict) else parent


class _Loader(yaml.CSafeLoader):
    """Safe YAML as the real server reads it: JSON's types only, ``y`` and ``n`` are booleans, no aliases."""

    bool_values: ClassVar[dict[str, bool]] = {**yaml.CSafeLoader.bool_values, "y": True, "n": False}

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.repeated: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Json]:
        """A mapping with text keys."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                self.repeated.append(str(key_node.value))
            seen.add(key_node.value)
        return {_key_text(key): value for key, value in super().construct_mapping(node, deep=deep).items()}


def _key_text(key: Hashable) -> str:
    return json.dumps(key) if key is None or isinstance(key, bool) else str(key)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^[yYnN]$"), list("yYnN"))


def decode_json_or_yaml(raw: bytes, max_depth: int) -> Decoded:
    """Decode a body announced as YAML, which most clients send as JSON.

    Raises:
        ApiError: 400, it is neither.
    """
    if raw.lstrip()[:1] == b"{":
        try:
            return decode_json(raw, max_depth)
        except ApiError:
            return decode_yaml(raw, max_depth)
    return decode_yaml(raw, max_depth)


def decode_yaml(raw: bytes, max_depth: int) -> Decoded:
    """Decode one YAML document. Aliases are refused: they can make a small body huge.

    Raises:
        ApiError: 400, it is not YAML of one document, uses aliases or is nested too deeply.
    """
    try:
        _check_events(raw, max_depth)
        loader = _Loader(raw)
        try:
            value = loader.get_single_data()
        finally:
            loader.dispose()
        raw_json = json.dumps(value, allow_nan=False).encode()
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        what = str(error).split("\n", 1)[0]
        raise bad_request(f"error decoding YAML: {what}") from error
    return Decoded(json.loads(raw_json), tuple(loader.repeated[:MAX_SHOWN]))


def _check_events(raw: bytes, max_depth: int) -> None:
    depth = 0
    for event in yaml.parse(raw, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("aliases are not accepted")  # noqa: TRY004 - the document is wrong, not a type
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > max_depth:
                raise ValueError(f"nested more than {max_depth} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
