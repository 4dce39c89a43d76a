"""``--backbone`` of ``crucible up`` and ``crucible service``."""

from pathlib import Path


def checked(file: Path) -> Path:
    """Refuse a file that says nothing of use, before anything starts; later changes are read as they come.

    Raises:
        NotFound, InvalidInput: says which file, which field, and what to write.
    """
    from crucible.backbone.settings import read_settings  # noqa: PLC0415 - help does not need it

    read_settings(file)
    return file.absolute()
