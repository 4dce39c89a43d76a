"""Revisions that are kept in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crucible.model.plugin import Identity
    from crucible.model.revision import Revision


class KeptRevisions:
    """Keeps what a control plane would.

    Attributes:
        kept: by the Plugin's uid and the revision's name.
        refuses: raised instead of keeping anything, while it is set.
    """

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Revision] = {}
        self.refuses: Exception | None = None

    async def remember(self, identity: Identity, revision: Revision) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.kept[identity.uid, revision.name] = revision

    async def recall(self, identity: Identity, name: str) -> Revision | None:
        return self.kept.get((identity.uid, name))

    async def forget(self, identity: Identity, name: str) -> None:
        self.kept.pop((identity.uid, name), None)
