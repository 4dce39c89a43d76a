from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from build import identity, plugin

from crucible.core.admission import admit
from crucible.errors import InvalidSource, Underway
from crucible.model.source import PullPolicy
from crucible.packages.snapshot import SnapshotStore
from crucible.packages.sources import Resolver, policy_of

if TYPE_CHECKING:
    from pathlib import Path

    from crucible.model.manifest import PluginSpec

IMAGE = {"type": "binary", "source": {"image": "shop/x:1"}, "entrypoint": []}


class Images:
    """Resolves every image to what it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.digest = "sha256:1"
        self.asked: list[tuple[str, str]] = []
        self.pulling = False

    async def resolve(self, reference: str, policy: PullPolicy, plugin_uid: str) -> tuple[str, str]:
        self.asked.append((reference, policy.value))
        if self.pulling:
            raise Underway("pulling")
        return self.digest, f"shop/x@{self.digest}"


def spec(**changes: Any) -> PluginSpec:
    return admit(plugin(**(IMAGE | changes)))


@pytest.fixture
def images() -> Images:
    return Images()


@pytest.fixture
def resolver(tmp_path: Path, images: Images) -> Resolver:
    return Resolver(SnapshotStore(tmp_path / "sources"), images)


async def test_a_tag_is_resolved_once_and_stays_what_it_was(resolver: Resolver, images: Images) -> None:
    first = await resolver.resolve(identity(), spec(), None)
    assert (first.digest, first.image) == ("sha256:1", "shop/x@sha256:1")
    images.digest = "sha256:2"
    assert await resolver.resolve(identity(generation=2), spec(version="2.0.0"), first) == first
    assert images.asked == [("shop/x:1", "IfNotPresent")]


@pytest.mark.parametrize(
    ("who", "what"),
    [
        ({"restart": "now"}, {}),
        ({}, {"source": {"image": "shop/x:2"}}),
        ({}, {"source": {"image": "shop/x:1", "imagePullPolicy": "Always"}}),
    ],
)
async def test_it_is_resolved_anew_when_a_person_asks_for_it(
    resolver: Resolver, images: Images, who: dict[str, Any], what: dict[str, Any]
) -> None:
    first = await resolver.resolve(identity(), spec(), None)
    images.digest = "sha256:2"
    second = await resolver.resolve(identity(**who), spec(**what), first)
    assert (second.digest, len(images.asked)) == ("sha256:2", 2)


async def test_what_is_under_way_is_not_known(resolver: Resolver, images: Images) -> None:
    images.pulling = True
    with pytest.raises(Underway):
        await resolver.resolve(identity(), spec(), None)


async def test_a_runtime_that_takes_no_images_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidSource, match="takes no images"):
        await Resolver(SnapshotStore(tmp_path / "sources")).resolve(identity(), spec(), None)


async def test_files_are_the_snapshots_business(resolver: Resolver) -> None:
    found = await resolver.resolve(identity(), admit(plugin()), None)
    assert found.image == ""
    assert resolver.sweep(()) == ()
    assert resolver.sweep(()) == (found.digest,)


async def test_an_address_is_its_own_digest(resolver: Resolver) -> None:
    urls = [{"type": "service", "source": {"url": f"https://{name}"}, "entrypoint": []} for name in "aab"]
    one, again, other = [await resolver.resolve(identity(), admit(plugin(**url)), None) for url in urls]
    assert one == again != other


@pytest.mark.parametrize(
    ("reference", "policy"),
    [
        ("x", "Always"),
        ("x:latest", "Always"),
        ("x:1", "IfNotPresent"),
        ("host:5000/x", "Always"),
        ("host:5000/x:1", "IfNotPresent"),
        ("x@sha256:1", "IfNotPresent"),
    ],
)
def test_the_default_policy_is_kubernetes_own(reference: str, policy: str) -> None:
    assert policy_of(reference, None) == policy
    assert policy_of(reference, PullPolicy.NEVER) is PullPolicy.NEVER
