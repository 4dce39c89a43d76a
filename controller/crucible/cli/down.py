"""``crucible down``."""

import shutil
from pathlib import Path
from typing import Annotated, Final

import typer

from crucible.cli.terminal import note
from crucible.cli.waiting import seconds_of
from crucible.errors import InvalidInput, NotFound
from crucible.settings import Places, default_root

EXAMPLES: Final = """\b
Examples:
  crucible down
  crucible down --state ./state --grace 2s
  crucible down --state ./state --purge --yes

What people asked for stays: the next 'crucible up' starts the same plugins again. With --purge it goes too,
with every Secret, output and snapshot; 'crucible backup' keeps them.
"""


def command(
    state: Annotated[
        Path | None, typer.Option("--state", metavar="DIR", help="State folder of the control plane.")
    ] = None,
    grace: Annotated[
        str, typer.Option("--grace", metavar="TIME", help="Between asking a plugin to end and killing it.")
    ] = "10s",
    purge: Annotated[bool, typer.Option("--purge", help="Delete the state folder as well.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before that.")] = False,
) -> None:
    """Stop the control plane of this machine and every plugin it runs."""
    seconds = seconds_of(grace)
    places = Places((state or default_root()).absolute())
    if not places.root.is_dir():
        raise NotFound(f"{places.root}: there is no state folder: name one with --state")
    if not (places.root / "id").exists():
        raise InvalidInput(f"{places.root} is no state folder of a control plane: it has no id")
    if purge and not yes:
        typer.confirm(f"Delete {places.root} with all that people asked for?", abort=True)
    from crucible.teardown import end_all  # noqa: PLC0415 - loads the runtimes; help does not

    ended = end_all(places, seconds, note)
    for stray in ended.strays:
        note(f"{stray} was on no record: removed")
    count = len(ended.instances)
    print(f"{count} instance{'' if count == 1 else 's'} ended")
    if purge:
        shutil.rmtree(places.root)
        print(f"{places.root} deleted")
