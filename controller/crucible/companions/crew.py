"""The companions of one control plane."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.companions.companion import Companion
    from crucible.model.door import Door


class Crew:
    """Keeps every companion."""

    def __init__(self, members: Mapping[Door, Companion]) -> None:
        """Take them over, each by the doors that it serves."""
        self._members = dict(members)
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    def open(self) -> None:
        """Begin: what runs already is found, what is needed is started. The runtime must be open."""
        loop = asyncio.get_running_loop()
        self._tasks = tuple(loop.create_task(member.keep()) for member in self._members.values())

    async def close(self) -> None:
        """Let go. The companions go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def member(self, door: Door) -> Companion | None:
        """Return the companion that serves a kind of door."""
        return self._members.get(door)

    def grant(self, plugin_uid: str, grants: Mapping[Door, Mapping[str, Any]]) -> None:
        """Say what a plugin may do behind each of its doors; behind one that is not named: nothing."""
        for door, member in self._members.items():
            member.grant(plugin_uid, grants.get(door, {}))

    def forget(self, plugin_uid: str) -> None:
        """Say that a plugin is gone."""
        for member in self._members.values():
            member.forget(plugin_uid)

    def refresh(self, plugin_uid: str) -> None:
        """Say that one of a plugin's instances came up or ended."""
        for member in self._members.values():
            member.refresh(plugin_uid)
