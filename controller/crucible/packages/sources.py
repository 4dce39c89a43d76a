"""Resolves every kind of source: files become a snapshot, an image a digest, an address stays what it is."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

from crucible.errors import InvalidSource
from crucible.model.source import PullPolicy
from crucible.model.status import SourceReport

if TYPE_CHECKING:
    from collections.abc import Collection

    from crucible.model.manifest import PluginSpec
    from crucible.model.plugin import Identity
    from crucible.packages.snapshot import SnapshotStore


class Images(Protocol):
    """Fetches images for the runtime that runs them."""

    async def resolve(self, reference: str, policy: PullPolicy, plugin_uid: str) -> tuple[str, str]:
        """Return an image's digest, and the reference that names exactly this image from now on.

        Args:
            reference: as the manifest has it.
            policy: when to ask the registry.
            plugin_uid: whose loop to ring when there is more to say.

        Raises:
            InvalidSource: there is no such image, or it is not the one the digest names.
            Underway: it is being pulled.
            Unavailable: the registry or the engine does not answer.
        """
        ...


class Resolver:
    """Keeps the contract of :class:`crucible.ports.Sources` for every kind of source."""

    def __init__(self, snapshots: SnapshotStore, images: Images | None = None) -> None:
        """Resolve files by ``snapshots`` and, where the runtime takes images, those by ``images``."""
        self._snapshots = snapshots
        self._images = images

    async def resolve(self, identity: Identity, spec: PluginSpec, known: SourceReport | None) -> SourceReport:
        """Return what the source is, asking anew only when there is an occasion to."""
        source = spec.source
        if source.url is not None:
            return SourceReport(digest=_digest(source.url), resolved_for="url")
        if source.image is None:
            return await self._snapshots.resolve(identity, spec, known)
        policy = policy_of(source.image, source.image_pull_policy)
        wanted = f"image {_digest(repr((source.image, policy.value, identity.restart)))[7:23]}"
        if known is not None and known.resolved_for == wanted:
            return known
        if self._images is None:
            raise InvalidSource("this runtime takes no images")
        digest, image = await self._images.resolve(source.image, policy, identity.uid)
        return SourceReport(digest=digest, image=image, resolved_for=wanted)

    def sweep(self, wanted: Collection[str]) -> tuple[str, ...]:
        """Delete snapshots that are not wanted. Images are the engine's, and stay."""
        return self._snapshots.sweep(wanted)


def policy_of(reference: str, given: PullPolicy | None) -> PullPolicy:
    """Return the policy that counts: what was given, else Kubernetes' own default for the reference."""
    if given is not None:
        return given
    name, _, digest = reference.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    latest = not digest and tag in {"", "latest"}
    return PullPolicy.ALWAYS if latest else PullPolicy.IF_NOT_PRESENT


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
