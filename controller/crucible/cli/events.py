"""``crucible events``."""

import time
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from crucible.cli.api import Api
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.objects import core, plugin_path
from crucible.cli.options import AllNamespaces, Data, DataOutput, Names, with_access
from crucible.cli.rows import EVENT_COLUMNS, event_row, event_time
from crucible.cli.table import line_of, table, width
from crucible.cli.terminal import note, one_line
from crucible.cli.watching import changes
from crucible.model import names

EXAMPLES: Final = """\b
Examples:
  crucible events
  crucible events word-count -f
  crucible events -A -o json
"""
_LEAST: Final = {"LAST SEEN": 9, "TYPE": 7, "REASON": 12, "PLUGIN": 16}


@with_access
def command(
    access: Access,
    plugins: Names = None,
    everywhere: AllNamespaces = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", "-w", "--follow", "-f", help="Go on, line by line, as things happen."),
    ] = False,
    output: DataOutput = Data.TEXT,
) -> None:
    """List what happened to plugins, oldest first."""
    with Api(endpoint_of(access)) as api:
        namespace = None if everywhere else access.namespace or api.namespace
        for name in plugins or ():
            api.get(
                plugin_path(str(namespace), name)
            )  # a name that does not exist is an error, not an empty list
        if watch:
            _watch(api, core(namespace, "events"), frozenset(plugins or ()))
            return
        found = recent(api, namespace, frozenset(plugins or ()))
    if output is not Data.TEXT:
        from crucible.cli.printing import data_as  # noqa: PLC0415 - loads YAML

        print(data_as(found, output), end="")
    elif found:
        now = time.time()
        print("\n".join(table([EVENT_COLUMNS, *(event_row(event, now) for event in found)])))
    else:
        note("nothing happened yet")


def recent(api: Api, namespace: str | None, plugins: frozenset[str]) -> list[dict[str, Any]]:
    """Return the events of Plugins, oldest first; no names: of all."""
    found = api.get(core(namespace, "events")).get("items", [])
    return sorted((event for event in found if _about(event, plugins)), key=event_time)


def _about(event: Mapping[str, Any], plugins: frozenset[str]) -> bool:
    about = event.get("involvedObject") or {}
    return about.get("kind") == names.KIND and (not plugins or about.get("name") in plugins)


def _watch(api: Api, path: str, plugins: frozenset[str]) -> None:
    widths = [max(width(name), _LEAST.get(name, 0)) for name in EVENT_COLUMNS]
    print(line_of(EVENT_COLUMNS, widths), flush=True)
    for change in changes(api, path, {}):
        if change.kind != "DELETED" and _about(change.object, plugins):
            row = [one_line(cell) for cell in event_row(change.object, time.time())]
            print(line_of(row, widths), flush=True)
