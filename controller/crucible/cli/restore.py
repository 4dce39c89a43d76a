"""``crucible restore``."""

from pathlib import Path
from typing import Annotated, Final

import typer

from crucible.control.backup import DATABASE, objects_in
from crucible.errors import InvalidInput
from crucible.settings import Places, default_root

EXAMPLES: Final = """\b
Examples:
  crucible restore monday.db
  crucible restore --force --state ./state monday.db

The control plane must be stopped. What it kept before stays beside it as control.db.before-restore.
Clients see a newer state: versions never go back.
"""


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)],
    state: Annotated[
        Path | None, typer.Option("--state", metavar="DIR", help="State folder of the local control plane.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Put it in the place of what is there.")] = False,
) -> None:
    """Put a backup in the place of what the stopped control plane kept."""
    from crucible.control.apiserver import restore_backup  # noqa: PLC0415 - loads the server; help does not

    count = objects_in(file)
    places = Places((state or default_root()).absolute())
    present = places.control / DATABASE
    if present.exists() and not force:
        raise InvalidInput(f"{present} exists: put the backup in its place with --force")
    places.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    restore_backup(places.control, file.absolute())
    print(f"{file} restored: {count} objects; start the control plane with 'crucible up'")
