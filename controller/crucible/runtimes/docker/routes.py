"""To which instances relays hand new connections: a file for each plugin, which its relay reads each time.

It is shown to the relay in a folder, in which a new file takes the place of the old one: a relay reads one or
the other, whole, whoever dies meanwhile. The next controller reads it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from crucible.model.workload import Slot

_FOLDER: Final = "routes"
_FILE: Final = "route"


class Routes:
    """The files of one control plane's relays, and what is in them."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._known: dict[str, frozenset[str]] = {}

    def folder(self, plugin_uid: str) -> Path:
        """Return what a plugin's relay is shown; made where there is none."""
        folder = self._place / plugin_uid / _FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for each in (folder.parent, folder):
            each.chmod(0o755)  # whatever the controller's umask is: the relay is another user
        return folder

    def put(self, plugin_uid: str, slots: Sequence[Slot]) -> None:
        """Name the instances that new connections go to; none: all.

        Raises:
            OSError: it cannot be written; what was there is still there.
        """
        file = self.folder(plugin_uid) / _FILE
        if slots:
            fresh = file.parent.parent / f"{_FILE}.new"
            fresh.write_text(" ".join(map(str, slots)))
            fresh.chmod(0o444)
            fresh.replace(file)
        else:
            file.unlink(missing_ok=True)
        self._known[plugin_uid] = frozenset(map(str, slots))

    def lead_to(self, plugin_uid: str, slot: Slot) -> bool:
        """Say whether new connections go to an instance."""
        if plugin_uid not in self._known:
            self._known[plugin_uid] = self._read(plugin_uid)
        named = self._known[plugin_uid]
        return not named or str(slot) in named

    def forget(self, plugin_uid: str) -> None:
        """Know nothing more of a plugin whose relay goes."""
        self._known.pop(plugin_uid, None)

    def _read(self, plugin_uid: str) -> frozenset[str]:
        try:
            return frozenset((self._place / plugin_uid / _FOLDER / _FILE).read_text().split())
        except FileNotFoundError:
            return frozenset()
