"""Whether a Plugin object may exist: everything that can be said from the object alone."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from crucible.core import bus, consistency, expression, handover
from crucible.errors import InvalidManifest, Violation
from crucible.model import names
from crucible.model.fields import RelativePath
from crucible.model.manifest import ConfigDelivery, PluginType
from crucible.model.plugin import field_path, parse_spec
from crucible.model.source import broken_rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from crucible.model.manifest import PluginSpec

NAME_LIMIT = 50
"""Characters of a Plugin's name; what is derived from it still fits a DNS label."""

_HOSTED = frozenset({PluginType.WASM, PluginType.RUNE})
_CALL_LIMIT = 64 * 1024
_DEPTH = 16
_WORK_LIMIT = 200_000
"""Most that schema and config may have to do with each other: the nodes of one times those of the other."""
_SCHEMA_NODES = 1000
_TOLD = 20
"""Violations told at once; who has more finds them at the next try."""
_PROGRAM: Final[TypeAdapter[str]] = TypeAdapter(RelativePath)
_HEAVY_KEYWORDS = frozenset(
    {"uniqueItems", "pattern", "patternProperties", "$ref", "$dynamicRef", "$recursiveRef"}
)
"""Keywords with which a hostile schema could keep the controller busy for ever."""


def admit(plugin: Mapping[str, Any]) -> PluginSpec:
    """Read a Plugin and check all that its own text can answer for.

    Raises:
        InvalidManifest: with every violation found; a field each, with the fix.
    """
    violations = [*_metadata(plugin.get("metadata") or {}), *_nested(plugin.get("spec"))]
    try:
        spec = parse_spec(plugin.get("spec"))
    except InvalidManifest as error:
        raise InvalidManifest((*violations, *error.violations)) from None
    violations += [Violation(*f"spec.{message}".split(": ", 1)) for message in broken_rules(spec)]
    violations += _entrypoint(spec)
    violations += bus.violations(spec)
    violations += handover.violations(spec)
    violations += consistency.violations(spec)
    violations += _secrets(spec)
    violations += _mounts(spec)
    violations += _config(spec)
    violations += _expressions(spec)
    if violations:
        raise InvalidManifest(tuple(violations))
    return spec


def violations_of(plugin: Mapping[str, Any]) -> tuple[Violation, ...]:
    """Return what :func:`admit` would raise; empty when it would not."""
    try:
        admit(plugin)
    except InvalidManifest as error:
        return error.violations
    return ()


def _metadata(meta: Mapping[str, Any]) -> Iterator[Violation]:
    if len(str(meta.get("name", ""))) > NAME_LIMIT:
        yield Violation("metadata.name", f"is longer than {NAME_LIMIT} characters: shorten it")
    if "." in str(meta.get("name", "")):
        yield Violation("metadata.name", "contains a dot: use letters, digits and '-'")
    known = {names.RESTARTED_AT, names.SOURCE_DIGEST, names.ROLLBACK, names.FROZEN}
    for where in ("labels", "annotations"):
        for key in meta.get(where) or {}:
            reserved = key.startswith(f"{names.GROUP}/") or key.partition("/")[0].endswith(f".{names.GROUP}")
            if reserved and key not in known:
                yield Violation(f"metadata.{where}", f"{key} is reserved for the controller: remove it")


def _entrypoint(spec: PluginSpec) -> Iterator[Violation]:
    if any("\0" in word for word in spec.entrypoint):
        yield Violation("spec.entrypoint", "contains a NUL byte, which no argument can hold")
    if not spec.entrypoint or spec.source.image is not None:
        return
    program = spec.entrypoint[0]
    try:
        _PROGRAM.validate_python(program)
    except ValidationError as error:
        yield Violation("spec.entrypoint[0]", error.errors()[0]["msg"].removeprefix("Value error, "))
        return
    inline = spec.source.inline
    if inline is not None and program not in inline:
        yield Violation("spec.entrypoint[0]", f"{program} is not among the files of source.inline")
    if inline is not None:
        for folder in {name for name in inline for other in inline if other.startswith(f"{name}/")}:
            yield Violation(f"spec.source.inline.{folder}", "is a file and, by another name, a folder")


def _mounts(spec: PluginSpec) -> Iterator[Violation]:
    places = [each.mount for each in spec.capabilities.files]
    for index, place in enumerate(places):
        if place in places[:index]:
            yield Violation(f"spec.capabilities.files[{index}].mount", f"{place} is taken: choose another")


def _nested(spec: object) -> Iterator[Violation]:
    """Refuse a volume in another: whoever may write to the one could put a link where the other goes."""
    match spec:
        case {"capabilities": {"files": [*files]}}:
            mounts = [str(each.get("mount")).rstrip("/") if isinstance(each, dict) else "" for each in files]
        case _:
            return
    for inner, place in enumerate(mounts):
        for outer, above in enumerate(mounts):
            if above and place.startswith(f"{above}/"):
                where = f"{place} lies in {above}, which is spec.capabilities.files[{outer}].mount"
                fix = "volumes do not lie in each other: write /data/NAME for each"
                yield Violation(f"spec.capabilities.files[{inner}].mount", f"{where}; {fix}")


def _secrets(spec: PluginSpec) -> Iterator[Violation]:
    for index, variable in enumerate(spec.env):
        if variable.secret is not None and variable.secret.name not in spec.capabilities.secrets:
            yield Violation(
                f"spec.env[{index}].secret.name", f"add {variable.secret.name} to capabilities.secrets"
            )


def _config(spec: PluginSpec) -> Iterator[Violation]:
    if _depth(spec.config) > _DEPTH:
        yield Violation("spec.config", f"is nested deeper than {_DEPTH} levels")
        return
    if spec.config_delivery is not ConfigDelivery.RESTART and spec.type in _HOSTED:
        yield Violation(
            "spec.configDelivery", f"a program of type {spec.type.value} hears of no change: write restart"
        )
    if spec.config_delivery is ConfigDelivery.BUS:
        if not bus.is_on_bus(spec):
            yield Violation(
                "spec.configDelivery", "bus is for a plugin on the bus: write capabilities: {bus: {}}"
            )
        if len(json.dumps(spec.config)) > _CALL_LIMIT:
            yield Violation(
                "spec.config", "is larger than 64 KiB, too large for a call: write file or signal"
            )
    if spec.config_schema is None:
        return
    heavy = sorted(set(_keywords(spec.config_schema)) & _HEAVY_KEYWORDS)
    if heavy or _depth(spec.config_schema) > _DEPTH:
        what = f"uses {', '.join(heavy)}" if heavy else f"is nested deeper than {_DEPTH} levels"
        yield Violation(
            "spec.configSchema", f"{what}, which could keep the controller busy for ever: leave it out"
        )
        return
    schema_nodes = _nodes(spec.config_schema)
    if schema_nodes > _SCHEMA_NODES or schema_nodes * _nodes(spec.config) > _WORK_LIMIT:
        what = f"and config are too large together ({schema_nodes} and {_nodes(spec.config)} values)"
        yield Violation("spec.configSchema", f"{what}: shorten one")
        return
    yield from _schema_violations(spec.config, spec.config_schema)


def _expressions(spec: PluginSpec) -> Iterator[Violation]:
    for name, probe in spec.health.probes:
        if probe.custom is not None:
            try:
                expression.check(probe.custom.expression)
            except expression.Unfit as error:
                yield Violation(f"spec.health.{name}.custom.expression", str(error))


def _schema_violations(config: dict[str, Any], schema: dict[str, Any]) -> Iterator[Violation]:
    import jsonschema  # noqa: PLC0415 - 60 ms that only a plugin with a schema has to pay

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        yield Violation("spec.configSchema", f"is no JSON Schema: {error.message}")
        return
    for problem in islice(jsonschema.Draft202012Validator(schema).iter_errors(config), _TOLD):
        yield Violation(field_path(("spec", "config", *problem.absolute_path)), problem.message[:500])


def _keywords(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            yield key
            yield from _keywords(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _keywords(item)


def _nodes(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(_nodes(item) for item in inner)


def _depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((_depth(item) for item in inner), default=0)
