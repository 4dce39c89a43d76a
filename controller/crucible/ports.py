"""All that a supervised Plugin touches of the outside, as protocols."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from crucible.aside import Aside
from crucible.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from crucible.core.transitions import Transition
    from crucible.model.decision import Event
    from crucible.model.health import Check, Streak, Watch
    from crucible.model.manifest import PluginSpec
    from crucible.model.plugin import Identity
    from crucible.model.revision import Revision
    from crucible.model.secret import SecretSeen
    from crucible.model.status import PluginStatus, SourceReport
    from crucible.model.workload import Slot
    from crucible.model.world import Reach
    from crucible.runtimes.base import Runtime


class Sources(Protocol):
    """Turns ``spec.source`` into files that do not change any more."""

    async def resolve(self, identity: Identity, spec: PluginSpec, known: SourceReport | None) -> SourceReport:
        """Return the digest of the source, taking a snapshot where there is none yet.

        Args:
            identity: of the Plugin.
            spec: what it asks for.
            known: what the source was resolved to before.

        Raises:
            InvalidSource: it does not exist, leaves its folder or is too large.
            Underway: it is being fetched; the loop is rung when there is more to say.
            Unavailable: whoever has it does not answer.
        """
        ...

    def sweep(self, wanted: Collection[str]) -> tuple[str, ...]:
        """Delete what was resolved a while ago and is not wanted; return the digests."""
        ...


class Voice(Protocol):
    """What the loop says to the control plane."""

    async def report(self, identity: Identity, status: PluginStatus) -> None:
        """Replace the Plugin's status.

        Raises:
            NotFound: the Plugin is gone.
            Unavailable: the control plane does not answer.
        """
        ...

    async def tell(self, identity: Identity, event: Event) -> None:
        """Record an event; one that cannot be recorded is logged and lost."""
        ...

    async def hold(self, identity: Identity) -> None:
        """Keep the Plugin from disappearing: add the finalizer.

        Raises:
            Conflict: the Plugin changed since ``identity`` was read.
            NotFound: the Plugin is gone.
        """
        ...

    async def release(self, identity: Identity) -> None:
        """Let the Plugin disappear: remove the finalizer."""
        ...


class Endpoints(Protocol):
    """Looks at endpoints that someone else runs."""

    async def reach(self, url: str) -> Reach:
        """Return whether it answers; takes seconds at most, and never raises."""
        ...


class Revisions(Protocol):
    """Keeps what Plugins ran as."""

    async def remember(self, identity: Identity, revision: Revision) -> None:
        """Keep a revision; one that is kept already is a success."""
        ...

    async def recall(self, identity: Identity, name: str) -> Revision | None:
        """Return a revision; None where it is not there or of no use."""
        ...

    async def forget(self, identity: Identity, name: str) -> None:
        """Keep a revision no longer; one that is gone is a success."""
        ...


class Prober(Protocol):
    """Goes on asking instances what their probes say."""

    def streaks(self, plugin_uid: str) -> Mapping[tuple[int, Check], Streak]:
        """Return the newest answers of a plugin's instances, by attempt and check."""
        ...

    def attend(self, plugin_uid: str, watches: Sequence[Watch], news: Callable[[], None]) -> None:
        """Watch these probes of a plugin, and no others; call ``news`` when their answers change."""
        ...


class Secrets(Protocol):
    """Knows which Secrets there are."""

    def look(self, namespace: str, names: Sequence[str]) -> tuple[SecretSeen, ...]:
        """Return what is known of Secrets, without what is in them."""
        ...


class Doorkeeper(Protocol):
    """Says to whoever is behind the doors who comes through them, and what that one may do there."""

    def attend(self, identity: Identity, spec: PluginSpec | None, status: PluginStatus) -> None:
        """Say what a Plugin may do now, and how it is; None: it is refused or going, and may do nothing."""
        ...

    async def configure(self, plugin_uid: str, slot: Slot, config: str) -> str:
        """Hand an instance a new configuration; return why it does not take it, empty when it does.

        Raises:
            Unavailable: it cannot be called now.
        """
        ...

    async def open_calls(self, plugin_uid: str, slots: Sequence[Slot]) -> Mapping[int, int | None]:
        """Return how many calls instances have that are given no new ones, by attempt.

        None: whoever gives them does not know yet that they are to be given no more.
        """
        ...

    def forget(self, plugin_uid: str) -> None:
        """Say that a Plugin is gone."""
        ...

    def notices(self, plugin_uid: str) -> tuple[str, ...]:
        """Return what there is to say of a Plugin, for people."""
        ...

    def lacks(self, plugin_uid: str) -> tuple[str, ...]:
        """Return what stands behind a Plugin's doors as a rule and does not now, and why."""
        ...


class Chronicle(Protocol):
    """Counts and logs how Plugins change."""

    def note(self, identity: Identity, changes: Sequence[Transition]) -> None:
        """Take in what one turn changed."""
        ...


class NoChronicle:
    """Where nobody asks how Plugins changed."""

    def note(self, identity: Identity, changes: Sequence[Transition]) -> None:
        """Nobody writes it down."""


class NoDoors:
    """Where there is nothing behind any door."""

    def attend(self, identity: Identity, spec: PluginSpec | None, status: PluginStatus) -> None:
        """Nobody hears."""

    async def configure(self, plugin_uid: str, slot: Slot, config: str) -> str:  # noqa: ARG002
        """Nobody is there to be called."""
        raise Unavailable("there is no bus")

    async def open_calls(self, plugin_uid: str, slots: Sequence[Slot]) -> Mapping[int, int | None]:  # noqa: ARG002
        """Nobody counts, so each has the whole of its time."""
        return {slot.attempt: None for slot in slots}

    def forget(self, plugin_uid: str) -> None:
        """Nobody knew."""

    def notices(self, plugin_uid: str) -> tuple[str, ...]:  # noqa: ARG002 - the same for all
        """Nobody says anything."""
        return ()

    def lacks(self, plugin_uid: str) -> tuple[str, ...]:  # noqa: ARG002 - the same for all
        """Nobody is missed."""
        return ()


@dataclass(frozen=True, slots=True)
class Ports:
    """All that a supervised Plugin touches of the outside."""

    runtime: Runtime
    sources: Sources
    voice: Voice
    endpoints: Endpoints
    prober: Prober
    revisions: Revisions
    now: Callable[[], float]
    secrets: Secrets
    doors: Doorkeeper = field(default_factory=NoDoors)
    chronicle: Chronicle = field(default_factory=NoChronicle)
    aside: Aside = field(default_factory=Aside)
