"""``crucible get``."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from crucible.cli.api import Api
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.exits import WrongUsage
from crucible.cli.objects import collection, plugin_path
from crucible.cli.options import AllNamespaces, Names, ObjectOutput, Output, Watch, with_access
from crucible.cli.printing import objects_as
from crucible.cli.rows import PHASE_COLOURS, heading, plugin_row
from crucible.cli.table import line_of, table, width
from crucible.cli.terminal import colourful, note, one_line, paint
from crucible.cli.watching import changes
from crucible.model import names

EXAMPLES: Final = """\b
Examples:
  crucible get
  crucible get -A -o wide
  crucible get word-count -o yaml
  crucible get -l team=search -w
"""
_WORDS: Final = frozenset(
    {names.PLURAL, names.SINGULAR, names.SHORT_NAME, names.CATEGORY, f"{names.PLURAL}.{names.GROUP}"}
)
_LEAST: Final = {"NAME": 16, "TYPE": 10, "VERSION": 8, "PHASE": 11, "RESTARTS": 8, "REASON": 12, "AGE": 5}
"""Widths that leave room for what a watch may bring."""


@with_access
def command(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    access: Access,
    plugins: Names = None,
    everywhere: AllNamespaces = False,
    selector: Annotated[
        str | None, typer.Option("--selector", "-l", metavar="LABELS", help="Only these, like team=search.")
    ] = None,
    watch: Watch = False,
    output: ObjectOutput = Output.TABLE,
) -> None:
    """List plugins, or show the ones named."""
    wanted = _names(list(plugins or ()))
    if everywhere and wanted:
        raise WrongUsage("a name belongs to one namespace: drop --all-namespaces, or the names")
    if selector and wanted:
        raise WrongUsage("names and --selector do not go together: drop one of the two")
    if watch and output not in {Output.TABLE, Output.WIDE}:
        raise WrongUsage(f"--watch prints a table: drop -o {output.value}")
    with Api(endpoint_of(access)) as api:
        namespace = None if everywhere else access.namespace or api.namespace
        params = {"labelSelector": selector} if selector else {}
        if watch:
            _watch(api, collection(namespace), params, wanted, _Shape(output is Output.WIDE, everywhere))
            return
        items = (
            [api.get(plugin_path(str(namespace), name)) for name in wanted]
            if wanted
            else api.get(collection(namespace), params).get("items", [])
        )
    if output in {Output.TABLE, Output.WIDE}:
        _print(items, _Shape(output is Output.WIDE, everywhere), namespace)
    else:
        print(objects_as(items, output, single=len(wanted) == 1), end="")


def _names(given: list[str]) -> list[str]:
    """Take away the word ``plugins``, which kubectl would need and people are used to."""
    if given and given[0] in _WORDS:
        return given[1:]
    return given


@dataclass(frozen=True, slots=True)
class _Shape:
    """Which columns a table has."""

    wide: bool
    namespaces: bool

    @property
    def heading(self) -> list[str]:
        return heading(wide=self.wide, namespaces=self.namespaces)

    def row(self, plugin: dict[str, Any]) -> list[str]:
        return plugin_row(plugin, time.time(), wide=self.wide, namespaces=self.namespaces)


def _print(items: Sequence[dict[str, Any]], shape: _Shape, namespace: str | None) -> None:
    if not items:
        where = f"namespace {namespace}" if namespace else "any namespace"
        note(f"no plugins in {where}; apply one with 'crucible apply -f plugin.yaml'")
        return
    rows = [shape.row(item) for item in items]
    lines = table([shape.heading, *rows])
    print(lines[0])
    for row, line in zip(rows, lines[1:], strict=True):
        print(_coloured(line, row))


def _watch(api: Api, path: str, params: dict[str, str], wanted: Sequence[str], shape: _Shape) -> None:
    widths = [max(width(name), _LEAST.get(name, 0)) for name in shape.heading]
    print(line_of(shape.heading, widths), flush=True)
    for row in _rows(api, path, params, wanted, shape):
        clean = [one_line(cell) for cell in row]
        widths = [max(room, width(cell)) for room, cell in zip(widths, clean, strict=True)]
        print(_coloured(line_of(clean, widths), clean), flush=True)


def _rows(
    api: Api, path: str, params: dict[str, str], wanted: Sequence[str], shape: _Shape
) -> Iterator[list[str]]:
    """Yield a row whenever it would say something else than before, age aside."""
    said: dict[str, list[str]] = {}
    for change in changes(api, path, params):
        meta = change.object["metadata"]
        if wanted and meta["name"] not in wanted:
            continue
        row = shape.row(change.object)
        at = shape.heading.index("AGE")
        if change.kind == "DELETED":
            said.pop(meta["uid"], None)
            row[shape.heading.index("PHASE")] = "Deleted"
            yield row
        elif said.get(meta["uid"]) != [*row[:at], *row[at + 1 :]]:
            said[meta["uid"]] = [*row[:at], *row[at + 1 :]]
            yield row


def _coloured(line: str, row: Sequence[str]) -> str:
    """Colour the phase, in a line that was laid out without colour."""
    phase = next((cell for cell in row if cell in PHASE_COLOURS), "")
    start, end = f"  {phase}  ", f"  {paint(phase, PHASE_COLOURS.get(phase, ''), on=colourful())}  "
    return line.replace(start, end, 1) if phase else line
