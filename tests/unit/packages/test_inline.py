from __future__ import annotations

import pytest
from build import identity, plugin

from crucible.core.admission import admit
from crucible.errors import InvalidSource, NotFound
from crucible.packages.folder import digest_of, inline_tree
from crucible.packages.inline import InlineSources

IMAGE = "example.org/thing@sha256:" + "1" * 64


async def test_inline_files_are_known_by_what_they_are_and_kept_as_long_as_they_are_wanted() -> None:
    sources = InlineSources("IfNotPresent")
    spec = admit(plugin())
    found = await sources.resolve(identity(), spec, None)
    assert found.digest == digest_of(inline_tree(spec.source.inline or {}))
    assert sources.files_of(found.digest) == spec.source.inline
    assert await sources.resolve(identity(), spec, found) == found
    assert sources.sweep(()) == ()  # nobody may have said so yet
    assert sources.sweep((found.digest,)) == ()
    assert sources.sweep(()) == (found.digest,)
    with pytest.raises(NotFound):
        sources.files_of(found.digest)


async def test_a_successor_that_has_only_the_status_reads_the_files_anew() -> None:
    spec = admit(plugin())
    known = await InlineSources("Always").resolve(identity(), spec, None)
    successor = InlineSources("Always")
    assert await successor.resolve(identity(), spec, known) == known
    assert successor.files_of(known.digest) == spec.source.inline


async def test_an_image_is_taken_by_its_digest_only_and_by_the_policy_that_holds_for_all() -> None:
    sources = InlineSources("IfNotPresent")
    found = await sources.resolve(identity(), admit(plugin(source={"image": IMAGE}, entrypoint=[])), None)
    assert (found.image, found.digest) == (IMAGE, "sha256:" + "1" * 64)
    for source, words in (
        ({"image": "example.org/thing:1.0"}, "not named by digest"),
        ({"image": IMAGE, "imagePullPolicy": "Always"}, "remove it"),
    ):
        with pytest.raises(InvalidSource, match=words):
            await sources.resolve(identity(), admit(plugin(source=source, entrypoint=[])), None)
