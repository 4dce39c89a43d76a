"""Keeps a folder of manifests applied, for as long as the control plane runs."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible.errors import CrucibleError, InvalidInput, InvalidManifest, NotFound, Violation
from crucible.manifests.applyset import (
    PART_OF,
    Mark,
    Member,
    leftovers,
    mark_of,
    member_of,
    plan,
    refusal_of,
    shape_of,
    source_of,
)
from crucible.manifests.folder import EMPTY_MARK, look, read_contents
from crucible.manifests.parent import parent_of, set_id
from crucible.manifests.resources import RESOURCES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from crucible.control.client import Client
    from crucible.manifests.applyset import Source
    from crucible.manifests.folder import Looks
    from crucible.manifests.wanted import Wanted

MANAGER: Final = "crucible-manifests"
"""The field manager: what it applied it may take back, and nothing else."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often to do what; seconds.

    Attributes:
        look: between two looks at the folder.
        settle: how long nothing may change before the folder is read, so that no half-written file is.
        patience: how long to wait for that.
        again: after which everything is read and compared again, changed or not.
        share: of the time at most that looking may take.
    """

    look: float = 1.0
    settle: float = 0.2
    patience: float = 3.0
    again: float = 30.0
    share: float = 0.05


async def keep_applied(folder: Path, client: Client, rhythm: Rhythm | None = None) -> None:
    """Apply the folder, and again whenever it or what came of it changes, until cancelled.

    Args:
        folder: absolute; its path is what the set is known by.
        client: of the control plane.
        rhythm: how often.
    """
    beat = rhythm or Rhythm()
    upkeep = Upkeep(folder, client)
    seen: Looks | None = None
    due = pause = 0.0
    while True:
        began = time.monotonic()
        now = await asyncio.to_thread(look, upkeep.roots)
        took = time.monotonic() - began
        changed = now != seen
        if changed or began >= due:
            seen = await _settled(upkeep, now, beat) if changed else now
            done = await upkeep.turn()
            pause = beat.again if done else beat.look if changed else min(2 * pause, beat.again)
            due = time.monotonic() + pause
        await asyncio.sleep(max(beat.look, took / beat.share))


async def _settled(upkeep: Upkeep, seen: Looks, beat: Rhythm) -> Looks:
    """Wait until the folder has not changed for a moment, but not for ever."""
    deadline = time.monotonic() + beat.patience
    while time.monotonic() < deadline:
        await asyncio.sleep(beat.settle)
        now = await asyncio.to_thread(look, upkeep.roots)
        if now == seen:
            break
        seen = now
    return seen


class Upkeep:
    """One folder, and what is remembered of it: what was applied, and what was said."""

    def __init__(self, folder: Path, client: Client) -> None:
        self._folder = folder
        self._client = client
        self._part_of = set_id(folder)
        self._marks: dict[str, Mark] = {}
        self._said: frozenset[str] = frozenset()
        self.roots: tuple[Path, ...] = (folder,)
        """Where a change may matter: the folder, and the plugins' own folders outside it."""

    async def turn(self) -> bool:
        """Read the folder, apply, remove, report; return whether all of it could be carried out."""
        try:
            sources = await asyncio.to_thread(self._read)
            self.roots = _roots(self._folder, sources)
            members = await self._members()
            await self._keep_parent(sources, members)
        except InvalidInput as error:
            self._report([f"{error}; nothing is changed or removed meanwhile"])
            return False
        except CrucibleError as error:
            self._report([f"{self._folder}: not applied now: {error}"])
            return False
        brought = [member for member in members.values() if not member.leaving]
        if brought and not sources and not (self._folder / EMPTY_MARK).exists():
            self._report([_emptied(self._folder, len(brought))])
            return False
        return await self._carry_out(sources, members)

    async def _carry_out(self, sources: Sequence[Source], members: Mapping[str, Member]) -> bool:
        work = plan(sources, members, self._marks)
        refused, held = list(work.refused), set(work.held)
        for name, wanted in work.apply:
            problems = await self._apply(wanted, members.get(wanted.path))
            refused += problems
            held |= {name} if problems else set()
        for member in leftovers(sources, members, held):
            refused += await self._remove(member)
        self._report(refused)
        return len(refused) == len(work.refused)

    def _read(self) -> tuple[Source, ...]:
        contents = read_contents(self._folder)
        return tuple(source_of(content, "default", self._part_of) for content in contents)

    async def _keep_parent(self, sources: Iterable[Source], members: Mapping[str, Member]) -> None:
        """Have the set's parent name every namespace before there is anything of the set in it."""
        wanted = {each.namespace for source in sources for each in source.wanted}
        namespaces = wanted | {member.namespace for member in members.values()}
        if namespaces:
            path, body = parent_of(self._folder, namespaces)
            await self._client.apply(path, body, MANAGER)

    async def _members(self) -> dict[str, Member]:
        found: dict[str, Member] = {}
        for resource in RESOURCES:
            params = {"labelSelector": f"{PART_OF}={self._part_of}"}
            items = (await self._client.get(resource.collection(), params))["items"]
            found |= {each.path: each for each in (member_of(resource, item) for item in items)}
        return found

    async def _apply(self, wanted: Wanted, member: Member | None) -> tuple[str, ...]:
        """Apply one object, say what that did, and return what the control plane has against it."""
        try:
            created, answer = await self._client.apply(wanted.path, wanted.body, MANAGER)
        except InvalidManifest as error:
            return refusal_of(wanted, error.violations)
        except CrucibleError as error:
            return refusal_of(wanted, [Violation("", str(error))])
        before, after = self._marks.get(wanted.path), mark_of(wanted, answer)
        self._marks[wanted.path] = after
        if created:
            log.info("%s: %s created", wanted.place, wanted.label)
        elif member is not None and member.shape == shape_of(answer):
            log.debug("%s: %s unchanged", wanted.place, wanted.label)
        elif before is not None and before.sent == after.sent:
            log.info("%s: %s put back as the manifest says", wanted.place, wanted.label)
        else:
            log.info("%s: %s configured", wanted.place, wanted.label)
        return ()

    async def _remove(self, member: Member) -> tuple[str, ...]:
        self._marks.pop(member.path, None)
        try:
            await self._client.delete(member.path, member.uid)
        except NotFound:
            return ()
        except CrucibleError as error:
            return (f"{member.label}: cannot be removed: {error}",)
        log.info("%s: %s removed: no file holds it any more", member.origin or self._folder, member.label)
        return ()

    def _report(self, refused: Sequence[str]) -> None:
        """Say what is refused: once, not every time it is found again."""
        now = frozenset(refused)
        for line in dict.fromkeys(refused):
            if line not in self._said:
                log.warning("refused: %s", line)
        if self._said and not now:
            log.info("%s: nothing is refused any more", self._folder)
        self._said = now


def _emptied(folder: Path, count: int) -> str:
    return (
        f"{folder}: holds no manifest at all, as when a disk is not mounted: its {count} objects stay. "
        f"If they shall go, say so: touch {folder / EMPTY_MARK}"
    )


def _roots(folder: Path, sources: Iterable[Source]) -> tuple[Path, ...]:
    named = {
        Path(path)
        for source in sources
        for wanted in source.wanted
        if (path := ((wanted.body.get("spec") or {}).get("source") or {}).get("path"))
    }
    return (folder, *sorted(path for path in named if not path.is_relative_to(folder)))
