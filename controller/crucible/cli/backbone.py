"""``crucible backbone``."""

import asyncio
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from crucible.cli.exits import WrongUsage
from crucible.cli.options import Data, DataOutput
from crucible.cli.table import table
from crucible.cli.terminal import note
from crucible.errors import InvalidInput, NotFound, Unavailable
from crucible.settings import Places, default_root

if TYPE_CHECKING:
    from crucible.backbone.machines import Machine

EXAMPLES: Final = """\b
Examples:
  crucible backbone invite beta --namespace default --file beta.pass
  crucible backbone ls
  crucible backbone status
  crucible backbone renew beta --file beta.pass
  crucible backbone revoke beta

Run it where the server is ('crucible up --backbone FILE' with 'listen' in FILE). A pass holds a
private key: carry it as you would a password, and name it there in a file of its own:

  pass: beta.pass
  share: {default: {machines: [alpha], call: [tokenizer.*], publish: ["notes.>"]}}

A machine that was revoked is cut off within seconds; its pass opens nothing any more.
"""


class Verb(StrEnum):
    """What to do."""

    INVITE = "invite"
    RENEW = "renew"
    REVOKE = "revoke"
    LS = "ls"
    STATUS = "status"


_TAKES: Final[Mapping[Verb, bool]] = {
    Verb.INVITE: True,
    Verb.RENEW: True,
    Verb.REVOKE: True,
    Verb.LS: False,
    Verb.STATUS: False,
}
_COLUMNS: Final = ("MACHINE", "NAMESPACES", "UNTIL")
_SEEN: Final = ("MACHINE", "PLUGINS", "CALLS-TO", "CALLS-FROM", "WAY")


def command(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    verb: Annotated[Verb, typer.Argument(metavar="invite|renew|revoke|ls|status", hidden=True)],
    machine: Annotated[str | None, typer.Argument(metavar="[MACHINE]", hidden=True)] = None,
    namespace: Annotated[
        list[str] | None,
        typer.Option("--namespace", "-n", metavar="NAME", help="In which it takes part; repeatable."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Where its pass goes; - to print it.")
    ] = None,
    days: Annotated[
        int, typer.Option("--days", metavar="N", min=1, max=3650, help="For which the pass is good.")
    ] = 365,
    state: Annotated[
        Path | None, typer.Option("--state", metavar="DIR", help="State folder of the control plane.")
    ] = None,
    output: DataOutput = Data.TEXT,
) -> None:
    """Invite other machines, so that plugins there and here are on one bus."""
    if _TAKES[verb] != (machine is not None):
        raise WrongUsage(f"backbone {verb}{' MACHINE' if _TAKES[verb] else ''}")
    places = Places((state or default_root()).absolute())
    if verb is Verb.STATUS:
        asyncio.run(_status(places, output))
        return
    if not places.backbone.is_dir():
        raise NotFound(
            f"{places.root}: no backbone was made there: start crucible up --backbone FILE, with listen in it"
        )
    match verb:
        case Verb.LS:
            _list(places.backbone, output)
        case Verb.REVOKE:
            _revoke(places.backbone, machine or "")
        case _:
            _invite(
                places.backbone, machine or "", tuple(namespace or ()), file, days, renew=verb is Verb.RENEW
            )


async def _status(places: Places, output: Data) -> None:
    """Ask the broker of this machine which others it sees."""
    from crucible.bus.host import HostBus  # noqa: PLC0415 - help does not need it

    async with HostBus(places.host / "bus.sock", "default") as bus:
        found = json.loads((await bus.call("$bus.machines")).payload)
    if output is not Data.TEXT:
        from crucible.cli.printing import data_as  # noqa: PLC0415 - loads YAML

        print(data_as(found, output), end="")
        return
    if not found["machine"]:
        raise Unavailable("this machine is on no backbone: start crucible up with --backbone FILE")
    if found["problem"]:
        raise Unavailable(f"{found['machine']} does not reach the backbone: {found['problem']}")
    rows = [
        [
            *(str(one[key]) for key in ("machine", "plugins", "made", "served")),
            "direct" if one["line"] else "server",
        ]
        for one in found["peers"]
    ]
    print(f"{found['machine']} is on the backbone, and sees {len(rows) or 'no'} other machines")
    if rows:
        print("\n".join(table([_SEEN, *rows])))
    if found.get("shut"):
        note(
            "other machines cannot come here directly: the port of 'lines' could not be bound, as the log of "
            "crucible up says; their calls go through the server"
        )
    for one in found["peers"]:
        if one["why"]:
            note(f"no direct line to {one['machine']}: {one['why']}")
    for one in found["refused"]:
        note(f"the server refuses: {one}: give {found['machine']} the permissions of docs/backbone.md")


def _invite(  # noqa: PLR0913 - the same
    folder: Path, name: str, namespaces: tuple[str, ...], file: Path | None, days: int, *, renew: bool
) -> None:
    from crucible.backbone.keeper import invite  # noqa: PLC0415 - help does not need it
    from crucible.backbone.machines import (  # noqa: PLC0415 - the same
        Machine,
        Machines,
        check_name,
        check_namespaces,
        fresh_token,
    )
    from crucible.backbone.settings import pass_text  # noqa: PLC0415 - the same

    check_name(name)
    known = Machines(folder).all().get(name)
    if renew and known is None:
        raise NotFound(f"no machine {name} was invited: crucible backbone invite {name}")
    if not renew and known is not None:
        raise InvalidInput(f"{name} was invited already: renew its pass, or revoke it first")
    wanted = tuple(dict.fromkeys(namespaces)) or (known.namespaces if known is not None else ())
    check_namespaces(wanted)
    if file is None:
        raise InvalidInput("say where its pass goes with --file FILE, or --file - to print it")
    machine = Machine(name, known.token if known is not None else fresh_token(), wanted, "")
    text = pass_text(invite(folder, machine, days))
    if str(file) == "-":
        sys.stdout.write(text)
        return
    from crucible.backbone.authority import write_private  # noqa: PLC0415 - the same

    write_private(file.absolute(), text)
    note(f"{file} written: carry it to {name}, and name it there as 'pass'")


def _revoke(folder: Path, name: str) -> None:
    from crucible.backbone.machines import Machines  # noqa: PLC0415 - help does not need it

    Machines(folder).drop(name)
    note(f"{name} is not on the backbone any more")


def _list(folder: Path, output: Data) -> None:
    from crucible.backbone.machines import Machines  # noqa: PLC0415 - help does not need it

    found = list(Machines(folder).all().values())
    if output is not Data.TEXT:
        from crucible.cli.printing import data_as  # noqa: PLC0415 - loads YAML

        print(data_as([_words(one) for one in found], output), end="")
        return
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    rows = [
        [one.name, ",".join(one.namespaces), one.until + (" (over)" if one.until < now else "")]
        for one in found
    ]
    print("\n".join(table([_COLUMNS, *rows])) if rows else "no machine was invited")


def _words(machine: "Machine") -> dict[str, object]:
    return {"machine": machine.name, "namespaces": list(machine.namespaces), "until": machine.until}
