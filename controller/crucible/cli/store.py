"""``crucible store``."""

import asyncio
import base64
import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from crucible.cli.endpoint import Access, bus_of
from crucible.cli.exits import WrongUsage
from crucible.cli.options import Data, DataOutput, Release, with_access
from crucible.cli.table import table
from crucible.cli.terminal import harmless, note
from crucible.errors import NotFound

if TYPE_CHECKING:
    from crucible.bus.host import Client

EXAMPLES: Final = """\b
Examples:
  crucible store ls word-counter
  crucible store get word-counter total
  crucible store put word-counter total 0
  crucible store put word-counter total - --revision 7 < total.json
  crucible store rm word-counter total
  crucible store export word-counter > total.jsonl

A value is printed and stored as the bytes it is; on a terminal, what could harm that is spelt out. export
prints one JSON object a line: key, revision, and value, or base64 where the value is no JSON.
"""


class Verb(StrEnum):
    """What to do."""

    GET = "get"
    PUT = "put"
    LS = "ls"
    RM = "rm"
    EXPORT = "export"


_TAKES: Final[Mapping[Verb, int]] = {Verb.GET: 1, Verb.PUT: 2, Verb.LS: 0, Verb.RM: 1, Verb.EXPORT: 0}
_COLUMNS: Final = ("KEY", "REVISION", "SIZE")


@with_access
def command(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    access: Access,
    verb: Annotated[Verb, typer.Argument(metavar="get|put|ls|rm|export", hidden=True, help="What to do.")],
    plugin: Annotated[str, typer.Argument(metavar="PLUGIN", hidden=True, help="Whose store.")],
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", hidden=True, help="Which value.")] = None,
    value: Annotated[
        str | None, typer.Argument(metavar="[VALUE]", hidden=True, help="For put; - for standard input.")
    ] = None,
    revision: Annotated[
        int | None,
        typer.Option("--revision", metavar="N", min=0, help="Only in the place of this one; 0: of none."),
    ] = None,
    output: DataOutput = Data.TEXT,
    release: Release = None,
) -> None:
    """Read and change what a plugin keeps in its store."""
    given = (key, value)
    if sum(each is not None for each in given) != _TAKES[verb]:
        raise WrongUsage(f"store {verb} PLUGIN {' '.join(('KEY', 'VALUE')[: _TAKES[verb]])}".rstrip())
    asyncio.run(_run(bus_of(access, release), verb, plugin, key or "", value or "", revision, output))


async def _run(  # noqa: PLR0913, PLR0917 - the same
    bus: "Client", verb: Verb, plugin: str, key: str, value: str, revision: int | None, output: Data
) -> None:
    headers = {"plugin": plugin, **({"key": key} if key else {})}
    if revision is not None:
        headers["revision"] = str(revision)
    async with bus:
        match verb:
            case Verb.GET:
                found = (await bus.call("$store.get", headers=headers)).payload
                sys.stdout.buffer.write(for_terminal(found) if sys.stdout.isatty() else found)
            case Verb.PUT:
                data = sys.stdin.buffer.read() if value == "-" else value.encode()
                answer = await bus.call("$store.put", data, headers=headers)
                note(f"{key} is at revision {answer.headers['revision']}")
            case Verb.RM:
                await bus.call("$store.delete", headers=headers)
                note(f"{key} is gone")
            case Verb.LS:
                _print_list(await _list(bus, plugin), output)
            case Verb.EXPORT:
                await _export(bus, plugin)


def for_terminal(value: bytes) -> bytes:
    """Return a value as a terminal may show it: plugins write there what they like."""
    return harmless(value.decode(errors="replace").removesuffix("\n")).encode() + b"\n"


async def _list(bus: "Client", plugin: str) -> dict[str, Any]:
    """Return every key of a store, and how full it is."""
    keys: list[dict[str, Any]] = []
    while True:
        headers = {"plugin": plugin, **({"after": keys[-1]["key"]} if keys else {})}
        page = json.loads((await bus.call("$store.list", headers=headers)).payload)
        keys += page["keys"]
        if not page["more"]:
            return {"keys": keys, "used": page["used"], "size": page["size"]}


def _print_list(found: dict[str, Any], output: Data) -> None:
    if output is not Data.TEXT:
        from crucible.cli.printing import data_as  # noqa: PLC0415 - loads YAML

        print(data_as(found, output), end="")
        return
    rows = [[one["key"], str(one["revision"]), str(one["size"])] for one in found["keys"]]
    if rows:
        print("\n".join(table([_COLUMNS, *rows])))
    note(f"{found['used']} of {found['size']} bytes are used")


async def _export(bus: "Client", plugin: str) -> None:
    for entry in (await _list(bus, plugin))["keys"]:
        try:
            frame = await bus.call("$store.get", headers={"plugin": plugin, "key": entry["key"]})
        except NotFound:
            continue  # deleted meanwhile
        line: dict[str, Any] = {"key": entry["key"], "revision": int(frame.headers["revision"])}
        try:
            line["value"] = json.loads(frame.payload)
        except (ValueError, RecursionError):
            line["base64"] = base64.b64encode(frame.payload).decode()
        print(json.dumps(line))
