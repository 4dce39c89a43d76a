"""How often the cycle collector of Python looks at everything, in a process that is ours alone."""

from __future__ import annotations

import gc
from typing import Final

YOUNG: Final = 25_000
"""Objects made, and not let go, between two looks at the youngest; Python's own figure is 700."""
GENERATIONS: Final = (10, 50)


def collect_rarely() -> None:
    """Let what was imported be, and look at the rest less often.

    A controller holds many thousand objects that hardly ever change, and everything it reads makes hundreds
    more that are gone at once: with Python's figures it looks through the former for the sake of the latter.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *GENERATIONS)
