"""Makes images, each only when something that goes into it changed."""

from __future__ import annotations

import fcntl
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import crucible
from crucible.runtimes.process import elf, roots
from imagelib import archive, debian, nats, operator, recipes, rune, sbom
from imagelib.digest import of_file, of_lines
from imagelib.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagelib.debian import Package

PLACE: Final = rune.REPOSITORY / "build/images"
_PACKAGES: Final = PLACE / "packages"


@dataclass(frozen=True, slots=True)
class Made:
    """An image in a file.

    Attributes:
        type: of the plugins it runs.
        path: the file, as ``docker load`` reads it.
        name: with its tag.
        identity: its id in an engine: the digest of its configuration.
    """

    type: str
    path: Path
    name: str
    identity: str


def images(types: tuple[str, ...], say: Callable[[str], None]) -> tuple[Made, ...]:
    """Make images of these types; ``operator`` is the operator's own, ``nats`` the server's of its brokers.

    Raises:
        CannotBuild, Unavailable: something they are made of is not to be had.
    """
    debian.check()
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if "rune" in types:
            rune.build(say)
        return tuple(_image(type_, say) for type_ in types)


def _image(type_: str, say: Callable[[str], None]) -> Made:
    target, stamp = PLACE / f"{type_}.tar", PLACE / f"{type_}.json"
    recipe = {operator.NAME: operator, nats.NAME: nats}.get(type_, recipes)
    packages = recipe.packages(type_, say)
    inputs = _inputs(type_, packages, recipe.local(type_))
    if target.is_file() and stamp.is_file() and (kept := json.loads(stamp.read_text()))["inputs"] == inputs:
        say(f"{kept['name']}: unchanged")
        return Made(type_, target, kept["name"], kept["identity"])
    say(f"{type_}: {len(packages)} packages to take from")
    tree = Tree(PLACE / type_, debian.fetch(packages, _PACKAGES))
    filled = recipe.fill(type_, tree, tree.packages)
    image = recipe.image(type_, filled)
    parts = (*map(sbom.of_package, tree.used), *filled.parts)
    tree.write(sbom.PLACE, sbom.document(image.name.partition(":")[0], crucible.__version__, parts))
    stamp.unlink(missing_ok=True)  # no stamp ever tells of an archive that is not this one
    identity = archive.write(image, tree.root, target)
    kept = {"inputs": inputs, "name": image.name, "identity": identity, "labels": dict(image.labels)}
    fresh = stamp.with_suffix(".new")
    fresh.write_text(json.dumps(kept))
    fresh.replace(stamp)
    say(f"{image.name}: {target.stat().st_size / 1e6:.1f} MB, from {len(tree.used)} packages")
    return Made(type_, target, image.name, identity)


def _inputs(type_: str, packages: tuple[Package, ...], local: tuple[Path, ...]) -> str:
    """Return a digest that changes when anything does that an image is made of, or how it is made."""
    own = [*sorted(Path(__file__).parent.glob("*.py")), Path(roots.__file__), Path(elf.__file__)]
    lines = [f"{path.name} {of_file(path)}" for path in (*own, *local)]
    return of_lines([type_, crucible.__version__, *lines, *(f"{one} {one.sha256}" for one in packages)])
