"""How Plugins change: counted for metrics, and one line in the log for each reason."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crucible.core.transitions import Transition
    from crucible.model.plugin import Identity

_log = logging.getLogger(__name__)


class Chronicle:
    """Counts transitions for as long as this process lives.

    Attributes:
        counts: how often a condition came to a status for a reason; all three are words of ours.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()

    def note(self, identity: Identity, changes: Sequence[Transition]) -> None:
        """Take in what one turn changed of a Plugin."""
        lines: dict[str, tuple[list[str], str]] = {}
        for each in changes:
            self.counts[each.condition, each.status, each.reason] += 1
            lines.setdefault(each.reason, ([], each.message))[0].append(f"{each.condition}={each.status}")
        for reason, (conditions, message) in lines.items():
            words = " ".join(message.split())  # a message may quote a stranger, and is one line
            _log.info(
                "%s/%s: %s (%s): %s", identity.namespace, identity.name, reason, ", ".join(conditions), words
            )
