"""``crucible restore``."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from crucible.cli.backup import ROOMS, RULES, STORES, told
from crucible.control import growing
from crucible.control.backup import DATABASE
from crucible.control.papers import place_papers
from crucible.errors import Conflict, InvalidInput, NotFound
from crucible.settings import Places, default_root

EXAMPLES: Final = """\b
Examples:
  crucible restore monday.backup
  crucible restore --force --state ./state monday.backup

The control plane must be stopped, and where the backup holds stores the broker too: 'crucible down' ends
both. What was kept before stays beside it as control.db.before-restore, and so do the files of the
backbone's authority and plugins' stores.
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
    # These load the server, and help must not wait for that.
    from crucible.control.apiserver import restore_backup  # noqa: PLC0415
    from crucible.control.apiserver.unpacking import Unpacked, place_sources, unpack  # noqa: PLC0415

    def place(found: Unpacked) -> None:
        if found.kept.stores is not None:
            _expect_no_broker(places)
            growing.place(found.stores, places.root / STORES.place)
        place_sources(found, places.sources)
        place_papers(found.papers, found.kept.papers, places.backbone)

    if not file.is_file():
        raise NotFound(f"{file}: there is no such file")
    places = Places((state or default_root()).absolute())
    present = places.control / DATABASE
    if present.exists() and not force:
        raise InvalidInput(f"{present} exists: put the backup in its place with --force")
    stores = places.root / STORES.place
    if growing.names_in(STORES, stores) and not force:
        raise InvalidInput(
            f"{stores} holds plugins' stores: put those of the backup in their place with --force"
        )
    with _draft_in(places.root) as draft:
        found = unpack(file.absolute(), draft, RULES, ROOMS)
        restore_backup(places.control, found.database, lambda: place(found))
    print(f"{file} restored: {told(found.kept)}; start the control plane with 'crucible up'")


def _expect_no_broker(places: Places) -> None:
    """Make sure that nobody writes to the stores.

    Raises:
        Conflict: the broker runs, for it outlives the control plane.
    """
    from crucible.doorkeeper import broker_runs  # noqa: PLC0415 - it loads much, and help does not need it

    mark = places.root / "id"
    if mark.is_file() and broker_runs(places, mark.read_text().strip()):
        raise Conflict("the broker runs still, and has the stores open: end it first with 'crucible down'")


@contextmanager
def _draft_in(root: Path) -> Iterator[Path]:
    """Yield an empty folder on the disk of the state folder, which is made only if all goes well."""
    is_new = not root.exists()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".restoring-", dir=root))
    try:
        yield draft
    finally:
        shutil.rmtree(draft)
        if is_new and not any(root.iterdir()):
            root.rmdir()
