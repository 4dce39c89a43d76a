"""``crucible describe``."""

import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import typer

from crucible.cli.api import Api
from crucible.cli.complete import complete_plugins
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.events import recent
from crucible.cli.objects import plugin_path, replicas_of
from crucible.cli.options import Data, DataOutput, with_access
from crucible.cli.printing import data_as
from crucible.cli.rows import (
    PHASE_COLOURS,
    REPLICA_COLUMNS,
    age,
    attention,
    event_row,
    newest_exit,
    replica_row,
)
from crucible.cli.table import table
from crucible.cli.terminal import colourful, one_line, paint
from crucible.cli.top import usage_of
from crucible.errors import InvalidManifest, Unsupported
from crucible.model.plugin import parse_spec

EXAMPLES: Final = """\b
Examples:
  crucible describe word-count
  crucible describe word-count -o json
"""
_EVENTS: Final = 10
_EVENT_COLUMNS: Final = ("LAST SEEN", "TYPE", "REASON", "MESSAGE")
_LEVELS: Final = {"enforced": "green", "degraded": "yellow", "unavailable": "red"}


@with_access
def command(
    access: Access,
    plugin: Annotated[
        str, typer.Argument(metavar="NAME", hidden=True, autocompletion=complete_plugins, help="The plugin.")
    ],
    output: DataOutput = Data.TEXT,
) -> None:
    """Show all there is to know of one plugin; as data: the object, its events, its counters."""
    with Api(endpoint_of(access)) as api:
        namespace = access.namespace or api.namespace
        found = api.get(plugin_path(namespace, plugin))
        events = recent(api, namespace, frozenset({plugin}))[-_EVENTS:]
        egress = _egress_of(api, found)
    if output is not Data.TEXT:
        print(data_as({"plugin": found, "events": events, "egress": egress}, output), end="")
        return
    lines = description(found, events, time.time(), egress=egress, colour=colourful())
    print("\n".join(lines))


def _egress_of(api: Api, plugin: Mapping[str, Any]) -> dict[str, int] | None:
    """Return what went through the egress proxy for a plugin that has one; None where nobody says."""
    capabilities = (plugin.get("spec") or {}).get("capabilities") or {}
    if not (capabilities.get("network") or {}).get("connect"):
        return None
    meta = plugin["metadata"]
    try:
        found = usage_of(api, meta.get("namespace"), frozenset({meta["name"]}))
    except Unsupported:
        return None
    return next((each["egress"] for each in found), None)


def description(
    plugin: Mapping[str, Any],
    events: list[dict[str, Any]],
    now: float,
    *,
    egress: Mapping[str, int] | None = None,
    colour: bool = False,
) -> list[str]:
    """Return the lines that describe a Plugin at a moment (unix seconds)."""
    return [
        *_head(plugin, now, colour=colour),
        *_block("Limits", _limits(plugin)),
        *_block("Conditions", _conditions(plugin, now)),
        *_block("Instances", _instances(plugin, now)),
        *(_block("Egress", _egress(egress)) if egress else ()),
        *_block("Enforcement", _enforcement(plugin, colour=colour)),
        *_block("Events", table([_EVENT_COLUMNS, *_event_rows(events, now)]) if events else ["none"]),
    ]


def _event_rows(events: list[dict[str, Any]], now: float) -> Iterator[list[str]]:
    for event in events:
        row = event_row(event, now)
        yield [*row[:3], row[4]]


def _head(plugin: Mapping[str, Any], now: float, *, colour: bool) -> Iterator[str]:
    meta, spec, status = plugin["metadata"], plugin.get("spec") or {}, plugin.get("status") or {}
    phase = status.get("phase", "Pending")
    what = attention(plugin)
    facts = {
        "Name": f"{meta['name']} in {meta.get('namespace', '')}",
        "Description": spec.get("description") or "",
        "Type": f"{spec.get('type')}, version {spec.get('version')}",
        "Runs": " ".join(str(word) for word in spec.get("entrypoint") or ()),
        "Source": _source(spec, status),
        "Labels": ", ".join(f"{key}={value}" for key, value in (meta.get("labels") or {}).items()),
        "Age": age(meta.get("creationTimestamp"), now),
        "Revision": status.get("revision", ""),
        "Phase": phase,
        "Attention": what,
        "Last exit": _last_exit(plugin, now),
    }
    for name, value in facts.items():
        if value:
            text = one_line(str(value))
            shown = paint(text, PHASE_COLOURS.get(phase, ""), on=colour) if name == "Phase" else text
            yield f"{name + ':':<14}{shown}"


def _source(spec: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    source = spec.get("source") or {}
    digest = str((status.get("source") or {}).get("digest", ""))[:19]
    where = (
        f"{len(source['inline'])} files in the manifest" if source.get("inline") else source.get("path", "")
    )
    return f"{where} ({digest})" if digest else str(where)


def _last_exit(plugin: Mapping[str, Any], now: float) -> str:
    last = newest_exit(plugin)
    return f"{last.get('reason')}, {age(last.get('at'), now)} ago: it {last.get('message')}" if last else ""


def _limits(plugin: Mapping[str, Any]) -> list[str]:
    """Return the limits with every default filled in, as they are enforced."""
    try:
        spec = parse_spec(plugin.get("spec"))
    except InvalidManifest:
        return ["unknown: the manifest cannot be read"]
    said = spec.resources.model_dump(mode="json", by_alias=True, exclude_none=True)
    return ["  ".join(f"{name} {value}" for name, value in said.items())]


def _conditions(plugin: Mapping[str, Any], now: float) -> list[str]:
    said, rows = {attention(plugin): "see Attention"}, []
    for entry in (plugin.get("status") or {}).get("conditions") or ():
        kind, message = str(entry.get("type", "")), str(entry.get("message", ""))
        rows.append(
            [
                kind,
                str(entry.get("status", "")),
                age(entry.get("lastTransitionTime"), now),
                str(entry.get("reason", "")),
                said.get(message, message) if message else "",
            ]
        )
        said.setdefault(message, f"as {kind}")
    if not rows:
        return ["none: the controller has not spoken of it yet"]
    return table([("TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"), *rows])


def _instances(plugin: Mapping[str, Any], now: float) -> list[str]:
    replicas = sorted(replicas_of(plugin), key=lambda replica: replica.get("ordinal", 0))
    if not replicas:
        return ["none"]
    return table([REPLICA_COLUMNS, *(replica_row(replica, now) for replica in replicas)])


def _egress(counted: Mapping[str, int]) -> list[str]:
    """Return what went through the proxy for all instances, since it or the plugin began."""
    words = f"{counted['allowed']} connections allowed, {counted['denied']} denied, {counted['open']} open"
    return [f"{words}; {counted['sent']} bytes sent, {counted['received']} received"]


def _enforcement(plugin: Mapping[str, Any], *, colour: bool) -> list[str]:
    entries = (plugin.get("status") or {}).get("enforcement") or ()
    if not entries:
        return ["none reported"]
    lines = table([("CONTROL", "LEVEL", "BY"), *([e["control"], e["level"], e["by"]] for e in entries)])
    painted = [
        line.replace(entry["level"], paint(entry["level"], _LEVELS.get(entry["level"], ""), on=colour), 1)
        for entry, line in zip(entries, lines[1:], strict=True)
    ]
    return [lines[0], *painted]


def _block(title: str, lines: list[str]) -> list[str]:
    return [f"{title}:", *(f"  {line}" for line in lines)]
