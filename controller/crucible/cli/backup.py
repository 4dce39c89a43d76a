"""``crucible backup``."""

from pathlib import Path
from typing import Annotated, Final

import typer

from crucible.backbone.papers import PAPERS
from crucible.bus.saved import MOST_BYTES, MOST_FILES, NAMES, whole_store
from crucible.cli.terminal import note
from crucible.control.backup import Kept, Rooms, SourceRules, write_backup
from crucible.control.growing import Growing
from crucible.errors import InvalidInput
from crucible.packages.folder import ENTRY_LIMIT, SIZE_LIMIT, digest_of, read_folder
from crucible.settings import Places, default_root

EXAMPLES: Final = """\b
Examples:
  crucible backup monday.backup
  crucible backup --state ./state monday.backup

Works while the control plane runs, and while it does not. The file holds everything, Secrets, the files of
plugins, what is in their stores and the backbone's authority included: keep it as you keep those. 'crucible
restore' puts it back, here or on another machine. What a cluster holds is not in it: its objects are
its own to back up, and stores and durable events there are kept by its NATS.
"""


def _look(folder: Path) -> tuple[str, frozenset[str]]:
    tree = read_folder(folder)
    return digest_of(tree), frozenset(tree)


RULES: Final = SourceRules(_look, ENTRY_LIMIT, SIZE_LIMIT)
STORES: Final = Growing("stores", "bus/data", NAMES, whole_store, MOST_BYTES, MOST_FILES)
ROOMS: Final = Rooms(PAPERS, STORES)


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
    places = Places((state or default_root()).absolute())
    kept = write_backup(places.control, places.sources, file.absolute(), RULES, ROOMS)
    for name in kept.damaged:
        note(f"{places.sources / name} is not what its name says: left out")
    if (places.backbone / "server").is_dir():
        note("what the backbone's server keeps of durable events is not in it")
    print(f"{file} written: {told(kept)}")


def told(kept: Kept) -> str:
    """Return how much a backup holds, in words."""
    sources = f", {kept.sources} sources" if kept.sources else ""
    stores = f", {len(kept.stores)} stores" if kept.stores else ""
    return (
        f"{kept.objects} objects{sources}{stores}{', the authority of the backbone' if kept.papers else ''}"
    )
