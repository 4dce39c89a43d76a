"""Sources of plugins on a cluster: files that the manifest spells out, images by digest; nothing on disk."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from crucible.errors import InvalidSource, NotFound
from crucible.model.status import SourceReport
from crucible.packages.folder import digest_of, inline_tree
from crucible.packages.snapshot import occasion

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from crucible.model.manifest import PluginSpec
    from crucible.model.plugin import Identity

_DIGEST: Final = re.compile(r".+@(sha256:[0-9a-f]{64})")


class InlineSources:
    """Keeps the contract of :class:`crucible.ports.Sources` where nodes fetch images and files come along.

    The files are those of the Plugin as it was read, which its loop holds anyway: they cost nothing more.
    """

    def __init__(self, pull_policy: str) -> None:
        """Resolve for pods that are pulled by this policy, all of them."""
        self._pull_policy = pull_policy
        self._files: dict[str, Mapping[str, str]] = {}
        self._fresh: set[str] = set()

    def files_of(self, digest: str) -> Mapping[str, str]:
        """Return the files of a source.

        Raises:
            NotFound: it was not resolved in this life of the controller.
        """
        found = self._files.get(digest)
        if found is None:
            raise NotFound(f"no source {digest}")
        return found

    async def resolve(self, identity: Identity, spec: PluginSpec, known: SourceReport | None) -> SourceReport:
        """Return what the source is.

        Raises:
            InvalidSource: it cannot be had on a cluster.
        """
        source = spec.source
        if source.url is not None:
            return SourceReport(digest=_digest(source.url), resolved_for="url")
        if source.image is not None:
            return self._image(source.image, source.image_pull_policy)
        if source.inline is None:
            raise InvalidSource(f"source.{source.kind} does not exist on a cluster: use inline or image")
        wanted = occasion(identity, spec)
        if known is not None and known.resolved_for == wanted and known.digest in self._files:
            return known
        digest = digest_of(inline_tree(source.inline))
        self._files[digest] = source.inline
        self._fresh.add(digest)
        return SourceReport(digest=digest, resolved_for=wanted)

    def _image(self, reference: str, policy: str | None) -> SourceReport:
        found = _DIGEST.fullmatch(reference)
        if found is None:
            raise InvalidSource(
                f"image {reference} is not named by digest, and only nodes could ask what its tag means, "
                "each at another time: write NAME@sha256:…"
            )
        if policy not in {None, self._pull_policy}:
            raise InvalidSource(
                f"imagePullPolicy {policy}: this cluster's operator uses {self._pull_policy} for every pod: "
                "remove it"
            )
        return SourceReport(digest=found[1], image=reference, resolved_for="image")

    def sweep(self, wanted: Collection[str]) -> tuple[str, ...]:
        """Forget files that are not wanted, but for those resolved since the last sweep."""
        spared, self._fresh = self._fresh, set()
        gone = tuple(digest for digest in self._files if digest not in wanted and digest not in spared)
        for digest in gone:
            del self._files[digest]
        return gone


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
