"""Takes more than its limits."""

import os
import resource
from collections.abc import Callable
from functools import partial
from typing import Any

from outcome import Outcome, got, nothing

MIB = 2**20
DISK, FILES = 64, 4096


def attempts(config: dict[str, Any]) -> dict[str, Callable[[], Outcome]]:
    """Return what to try."""
    del config
    return {
        "fill the disk": partial(fill, "/tmp/filled"),
        "fill the shared memory": partial(fill, "/dev/shm/filled"),
        "open files without end": open_without_end,
        "raise its own limits": raise_limits,
    }


def fill(path: str) -> Outcome:
    """Write until there is no more room; its limit is far below what this tries."""
    written = 0
    try:
        with open(path, "wb", buffering=0) as file:
            for written in range(DISK):
                if file.write(bytes(MIB)) != MIB:
                    return nothing(f"cut short after {written} MiB")
    except OSError as error:
        return nothing(f"refused after {written} MiB: {error.strerror}")
    finally:
        os.unlink(path)
    return got(f"wrote {DISK} MiB")


def open_without_end() -> Outcome:
    """Open descriptors until there are no more."""
    kept: list[int] = []
    try:
        while len(kept) < FILES:
            kept.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return nothing(f"refused after {len(kept)} files: {error.strerror}")
    finally:
        for descriptor in kept:
            os.close(descriptor)
    return got(f"opened {FILES} files")


def raise_limits() -> Outcome:
    """Lift the bound that the kernel keeps for it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))
    except ValueError as error:
        return nothing(f"stays at {soft}: {error}")
    return got(f"raised from {hard}")
