"""What of the backbone a backup holds: what cannot be made again. What the server keeps is not in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from crucible.control.papers import Papers
from crucible.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path


def _check(folder: Path) -> None:
    """Hold the authority, who this machine is, and the list of machines against what they should be.

    Raises:
        InvalidInput: one of them is missing or damaged.
    """
    from crucible.backbone.authority import authority_in, utc_now  # noqa: PLC0415 - help does not need it
    from crucible.backbone.machines import Machines  # noqa: PLC0415 - the same

    for name in PAPERS.files[:3]:
        if not (folder / name).is_file():
            raise InvalidInput(f"{folder / name}: there is no such file, though others are that belong to it")
    authority = authority_in(folder, utc_now())
    if not authority.has_its_key():
        raise InvalidInput(f"{folder}: ca.key is not the key of ca.crt")
    Machines(folder).all()
    try:
        json.loads((folder / "own.json").read_text())["token"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{folder / 'own.json'}: does not say who this machine is") from error


PAPERS: Final = Papers("backbone", ("ca.crt", "ca.key", "own.json", "machines.json"), _check)
