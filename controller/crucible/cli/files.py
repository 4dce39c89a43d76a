"""Writing files that hold secrets: never half written, and for nobody else's eyes."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from crucible.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path


def write_file(path: Path, content: bytes) -> None:
    """Put a file, mode 0600, in its place whole.

    Raises:
        InvalidInput: it cannot be written there.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InvalidInput(f"{path}: cannot be written: {error.strerror}") from None
