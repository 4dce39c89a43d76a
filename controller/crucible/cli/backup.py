"""``crucible backup``."""

from pathlib import Path
from typing import Annotated, Final

import typer

from crucible.control.backup import write_backup
from crucible.errors import InvalidInput
from crucible.settings import Places, default_root

EXAMPLES: Final = """\b
Examples:
  crucible backup monday.db
  crucible backup --state ./state monday.db

Works while the control plane runs, and while it does not. The file holds everything, Secrets included:
keep it as you keep those. 'crucible restore' puts it back.
"""


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)],
    state: Annotated[
        Path | None, typer.Option("--state", metavar="DIR", help="State folder of the local control plane.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that exists.")] = False,
) -> None:
    """Copy everything the local control plane keeps into one file."""
    if file.exists() and not force:
        raise InvalidInput(f"{file} exists: choose another name, or write over it with --force")
    count = write_backup(Places((state or default_root()).absolute()).control, file.absolute())
    print(f"{file} written: {count} objects")
