"""What each image is made of."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible import __version__
from crucible.runtimes.process import roots
from imagelib import debian, rune, sbom
from imagelib.archive import Image
from imagelib.digest import of_file, of_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from imagelib.debian import Package
    from imagelib.tree import Tree

_MEANS: Final = {
    "python": "Runs plugins written in Python, with the standard library",
    "javascript": "Runs plugins written in JavaScript, with node",
    "wasm": "Runs WebAssembly plugins (WASI) within limits of fuel, memory and time",
    "binary": "Runs plugins that are programs, static or linked against the C library",
    "rune": "Runs plugins written as Rune scripts within limits of fuel, memory and time",
}
TYPES: Final = tuple(_MEANS)
_PACKAGES: Final = {
    "python": ("python3", "libgcc-s1", "libstdc++6"),
    "javascript": ("nodejs",),
    "wasm": ("python3",),
    "binary": ("libc6", "libgcc-s1", "libstdc++6"),
    "rune": (),
}
# What compiled programs and packages expect of any host.
_USUAL: Final = re.compile(
    r".*/(libc|libm|libdl|libpthread|librt|libresolv|libgcc_s|libstdc\+\+)\.so\.[0-9]+"
)
_PYTHON: Final = re.compile(r"python(3\.\d+)-minimal")
_PATH: Final = "PATH=/usr/local/bin:/usr/bin:/bin"
# What the wasm host, and the library it stands on, import of the standard library and its extensions.
_FOR_WASM: Final = frozenset(
    {
        *("collections", "ctypes", "encodings", "importlib", "json", "re", "urllib", "concurrent", "logging"),
        "zipfile",
    }
)
_EXTENSIONS_FOR_WASM: Final = (
    "_ctypes.",
    "_contextvars.",
    "_json.",
    "_typing.",
    "_queue.",
    "_ssl.",
    "_struct.",
)


@dataclass(frozen=True, slots=True)
class Made:
    """A root file system, and what goes with it.

    Attributes:
        before: the interpreter and its flags, which come before the plugin's program.
        parts: what is in it besides packages.
    """

    before: tuple[str, ...]
    parts: tuple[sbom.Part, ...] = ()


def packages(type_: str, say: Callable[[str], None]) -> tuple[Package, ...]:
    """Return the packages an image is taken from: more than it will hold."""
    return debian.closure(_PACKAGES[type_], say) if _PACKAGES[type_] else ()


def local(type_: str) -> tuple[Path, ...]:
    """Return the files of this host that an image depends on."""
    match type_:
        case "rune":
            return (rune.BINARY, rune.SOURCES / "Cargo.lock")
        case "wasm":
            return (*roots.WASM_HOSTS.values(), _wasmtime() / "_bindings.py", *_libraries())
        case _:
            return tuple(path for _, path in roots.sdk(type_))


def fill(type_: str, tree: Tree, found: Mapping[Package, Path]) -> Made:
    """Put a type's files into a tree."""
    match type_:
        case "python":
            return replace(python(tree, found, sdk=True), parts=(_sdk_part(type_),))
        case "javascript":
            return _javascript(tree)
        case "wasm":
            return _wasm(tree, found)
        case "binary":
            tree.take(lambda place: _USUAL.fullmatch(place) is not None)
            tree.take_libraries()
            return Made(before=())
        case _:
            tree.copy(rune.BINARY, "usr/bin/crucible-rune")
            lock = (rune.SOURCES / "Cargo.lock").read_text()
            return Made(before=("/usr/bin/crucible-rune",), parts=sbom.of_lock(lock))


def image(type_: str, made: Made) -> Image:
    """Return what an image says of itself."""
    return Image(
        name=f"crucible/{type_}:{__version__}",
        entrypoint=made.before,
        env=(_PATH, "HOME=/tmp", "LANG=C.UTF-8"),
        labels={
            "dev.crucible.type": type_,
            "dev.crucible.entrypoint": json.dumps(made.before),
            "dev.crucible.env": "{}",
            "org.opencontainers.image.title": f"crucible/{type_}",
            "org.opencontainers.image.description": _MEANS[type_],
            "org.opencontainers.image.version": __version__,
            "org.opencontainers.image.licenses": "Apache-2.0",
            "org.opencontainers.image.vendor": "Crucible Plugin Manager",
        },
    )


def python(tree: Tree, found: Mapping[Package, Path], *, sdk: bool = False) -> Made:
    """Put an interpreter and the standard library into a tree, and the plugins' SDK where it is wanted."""
    version = _version(found)
    place = f"usr/lib/{version}"

    def wanted(path: str) -> bool:
        if path.startswith(f"{place}/lib-dynload/"):
            return not Path(path).name.startswith(roots.PYTHON_EXTENSIONS_LEFT_OUT)
        return path == f"usr/bin/{version}" or (
            path.startswith(f"{place}/") and roots.PYTHON_LEFT_OUT.isdisjoint(path.split("/"))
        )

    tree.take(wanted)
    if sdk:
        _copy_sdk(tree, "python", place)
        tree.take(lambda place: _USUAL.fullmatch(place) is not None)
        tree.link("usr/bin/python3", version)  # a name that manifests can hold whatever the release
    tree.take_libraries()
    tree.compile_python(f"usr/bin/{version}", place)
    return Made(before=(f"/usr/bin/{version}", *roots.PYTHON_FLAGS))


def _copy_sdk(tree: Tree, type_: str, place: str) -> None:
    for name, path in roots.sdk(type_):
        tree.copy(path, f"{place}/{name}")


def _sdk_part(type_: str) -> sbom.Part:
    digest = of_lines([f"{name} {of_file(path)}" for name, path in roots.sdk(type_)])
    name = f"crucible-plugin-sdk-{type_}"
    return sbom.Part(name, __version__, digest, f"pkg:generic/{name}@{__version__}")


def _javascript(tree: Tree) -> Made:
    tree.take(lambda place: place == "usr/bin/node")
    tree.take_libraries()
    # Debian keeps what node has built in elsewhere as files of packages; npm and what it needs is none of it.
    names = {match[1] for match in re.finditer(rb"/usr/share/nodejs/([a-z-]+)/", _content(tree))}
    kept = tuple(f"usr/share/nodejs/{name.decode()}/" for name in names)
    tree.take(lambda place: place.startswith(kept) and place.endswith((".js", ".json", ".wasm", ".mjs")))
    _copy_sdk(tree, "javascript", roots.NODE_MODULES)
    return Made(before=("/usr/bin/node",), parts=(_sdk_part("javascript"),))


def _wasm(tree: Tree, found: Mapping[Package, Path]) -> Made:
    version = _version(found)
    place = f"usr/lib/{version}"

    def wanted(path: str) -> bool:
        rest = path.removeprefix(f"{place}/").split("/")
        if path.startswith(f"{place}/lib-dynload/"):
            return rest[-1].startswith(_EXTENSIONS_FOR_WASM)
        return path == f"usr/bin/{version}" or (
            path.startswith(f"{place}/")
            and (rest[0] in _FOR_WASM or (len(rest) == 1 and path.endswith(".py")))
            and roots.PYTHON_LEFT_OUT.isdisjoint(rest)
        )

    tree.take(wanted)
    tree.copy(_wasmtime(), f"{place}/wasmtime")
    for name, path in roots.WASM_HOSTS.items():
        tree.copy(path, f"{place}/{name}")
    tree.take_libraries()
    tree.compile_python(f"usr/bin/{version}", place)
    number = metadata.version("wasmtime")
    parts = (
        sbom.Part("wasmtime", number, of_file(next(_libraries())), f"pkg:pypi/wasmtime@{number}"),
        sbom.Part(
            "crucible-plugins", __version__, of_file(roots.WASM_HOST), f"pkg:generic/crucible@{__version__}"
        ),
    )
    return Made(before=(f"/usr/bin/{version}", *roots.WASM_FLAGS), parts=parts)


def _wasmtime() -> Path:
    found = roots.wasmtime_package()
    if found is None:
        raise FileNotFoundError("the Python package wasmtime is not installed: run make setup")
    return found


def _libraries() -> Iterator[Path]:
    return _wasmtime().glob("*/_libwasmtime.so")


def _version(found: Mapping[Package, Path]) -> str:
    """Return the name of the interpreter among packages: ``python3.11``."""
    matches = (_PYTHON.fullmatch(package.name) for package in found)
    return next(f"python{match[1]}" for match in matches if match)


def _content(tree: Tree) -> bytes:
    programs = (tree.root / "usr").rglob("*node*")
    return b"".join(path.read_bytes() for path in sorted(programs) if path.is_file())
