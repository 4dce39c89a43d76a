"""How the disk limit is split among the places a plugin may write to: the same for every runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from crucible.model.workload import Limits

_SHARED_MEMORY_MAX: Final = 16 * 1024 * 1024


def scratch_sizes(limits: Limits, places: int = 1) -> tuple[int, int]:
    """Return the bytes of each scratch place, and those of shared memory; together they are the limit.

    Args:
        limits: of the instance.
        places: how many scratch places there are besides shared memory.
    """
    shared = min(limits.disk // 4, _SHARED_MEMORY_MAX)
    # A tmpfs of size 0 has no limit at all.
    return max((limits.disk - shared) // places, 1), max(shared, 1)
