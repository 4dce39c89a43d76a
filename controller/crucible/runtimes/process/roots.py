"""The read-only root file systems: one for each plugin type, of only what that type needs.

A root lies in ``<type>-<key>``, where the key changes when anything it was made from does. It is made in a
directory beside that and renamed into place whole, so that a crash, or two controllers at once, leave either
nothing or all of it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import crucible
from crucible.core.guest import HOSTS
from crucible.runtimes.process import elf, rootcache
from crucible.runtimes.process.argv import CONFIG, DEVICES, SOURCE, Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What is put into a root is told below: one that another text of this module made is not taken for it.
_LAYOUT: Final = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()

PYTHON_LEFT_OUT: Final = frozenset(
    {
        *(
            "__pycache__",
            "test",
            "tests",
            "idlelib",
            "tkinter",
            "turtledemo",
            "turtle.py",
            "ensurepip",
            "lib2to3",
        ),
        *("site-packages", "dist-packages", "sitecustomize.py", "usercustomize.py", "venv", "pydoc_data"),
    }
)
PYTHON_EXTENSIONS_LEFT_OUT: Final = (
    *("_tkinter.", "_curses", "readline.", "_gdbm.", "_dbm.", "_test", "xxlimited", "_ctypes_test", "nis."),
)
_C_LIBRARIES: Final = (
    *("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libresolv.so.2"),
    *("libgcc_s.so.1", "libstdc++.so.6"),
)

# -s: no user site; -B: nothing can be written beside the sources; -u: output appears at once.
PYTHON_FLAGS: Final = ("-s", "-B", "-u")

NODE_MODULES: Final = "node_modules"
"""Where a plugin's program, in a folder beside it, finds packages that it has not brought itself."""

# The host of WebAssembly programs lies in the standard library: -I and -S keep everything else out, whatever
# the plugin's environment says.
WASM_FLAGS: Final = ("-I", "-S", "-B", "-m", "crucible_wasm")
WASM_HOST: Final = Path(crucible.__file__).parent / "hosts/wasm.py"
WASM_HOSTS: Final = {
    "crucible_wasm.py": WASM_HOST,
    **{
        f"crucible_wasm_bus/{path.name}": path
        for path in sorted(WASM_HOST.with_name("wasm_bus").glob("*.py"))
    },
}
"""The host and, beside it, what it lends programs of the bus."""

_RUNE: Final = "crucible-rune"

_SDKS: Final = Path(crucible.__file__).parent / "sdk"
_SDK_FILES: Final = frozenset({".py", ".typed", ".js", ".mjs", ".cjs", ".ts", ".json"})
_SDK_SOURCES: Final = Path(crucible.__file__).parents[2] / "plugin-images"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a root is made of.

    Attributes:
        type: the plugin type.
        program: how programs of that type are run in it.
        files: where in the root, and which file of this host.
        trees: directories copied whole, with names left out: where in the root, which directory.
        compiled: the directories of Python sources in it, to byte-compile.
        links: other names of programs: where in the root, and what each leads to.
    """

    type: str
    program: Program
    files: tuple[tuple[str, Path], ...]
    trees: tuple[tuple[str, Path], ...] = ()
    compiled: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """Sixteen hex digits that change when anything this is made of does."""
        digest = hashlib.sha256(f"{_LAYOUT} {sys.version}".encode())
        inside = ((place, path) for place, tree in self.trees for path in _files(tree))
        for place, path in (*self.files, *inside):
            found = path.stat()
            digest.update(f"{place} {path} {found.st_size} {found.st_mtime_ns} {found.st_ino}\n".encode())
        return digest.hexdigest()[:16]


def python_recipe() -> Recipe:
    """Describe a root with the interpreter that runs the controller, without its site-packages."""
    binary = Path("/proc/self/exe").resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    standard = Path(os.__file__).resolve().parent
    extensions = Path(str(sysconfig.get_config_var("DESTSHARED")))
    if not extensions.is_dir():
        extensions = standard / "lib-dynload"
    place = f"usr/{sys.platlibdir}/{version}"
    modules = tuple(
        path
        for path in sorted(extensions.glob("*.so"))
        if not path.name.startswith(PYTHON_EXTENSIONS_LEFT_OUT)
    )
    return Recipe(
        type="python",
        program=Program(before=(f"/usr/bin/{version}", *PYTHON_FLAGS)),
        files=(
            (f"usr/bin/{version}", binary),
            *((f"{place}/lib-dynload/{path.name}", path) for path in modules),
            *((f"{place}/{name}", path) for name, path in sdk("python")),
            *sorted({**dict(_needed((binary, *modules))), **_usual(binary)}.items()),
        ),
        trees=((place, standard),),
        compiled=(place,),
        links=(("usr/bin/python3", version),),
    )


def node_recipe(node: Path) -> Recipe:
    """Describe a root with a ``node`` binary of this host."""
    binary = node.resolve()
    shared = Path("/usr/share/nodejs")  # Debian keeps some of node's own modules outside its binary.
    return Recipe(
        type="javascript",
        program=Program(before=("/usr/bin/node",)),
        files=(
            ("usr/bin/node", binary),
            *((f"{NODE_MODULES}/{name}", path) for name, path in sdk("javascript")),
            *_needed((binary,)),
        ),
        trees=(("usr/share/nodejs", shared),) if shared.is_dir() else (),
    )


def binary_recipe() -> Recipe:
    """Describe a root with the C library and its loader: enough for static and simple dynamic programs."""
    return Recipe(
        type="binary",
        program=Program(),
        files=tuple(sorted(_usual(Path("/proc/self/exe").resolve()).items())),
    )


def _usual(binary: Path) -> dict[str, Path]:
    """Return what compiled programs and packages expect of any host: where in a root, and which file."""
    needed = dict(_needed((binary,)))
    loader = elf.loader(binary)
    libc = next((path for path in needed.values() if path.name.startswith("libc.")), None)
    beside = {place: path for place, path in needed.items() if path.name in _C_LIBRARIES or path == loader}
    if libc is not None:
        beside |= {
            f"{str(libc.parent).lstrip('/')}/{name}": libc.parent / name
            for name in _C_LIBRARIES
            if (libc.parent / name).exists()
        }
    if loader is not None:
        beside[str(loader).lstrip("/")] = loader
    return beside


def wasm_recipe(wasmtime: Path) -> Recipe:
    """Describe a root with the host of WebAssembly programs and the ``wasmtime`` package it stands on."""
    python = python_recipe()
    interpreter, *_ = python.program.before
    (place,) = python.compiled
    libraries = tuple(sorted(wasmtime.glob("*/*.so")))
    needed = dict(_needed((Path("/proc/self/exe").resolve(), *libraries)))
    hosts = {f"{place}/{name}": path for name, path in WASM_HOSTS.items()}
    return replace(
        python,
        type="wasm",
        program=Program(before=(interpreter, *WASM_FLAGS)),
        files=tuple({**dict(python.files), **needed, **hosts}.items()),
        trees=(*python.trees, (f"{place}/wasmtime", wasmtime)),
        links=(),
    )


def rune_recipe(rune: Path) -> Recipe:
    """Describe a root with the program that runs Rune scripts."""
    binary = rune.resolve()
    return Recipe(
        type="rune",
        program=Program(before=(f"/usr/bin/{_RUNE}",)),
        files=((f"usr/bin/{_RUNE}", binary), *_needed((binary,))),
    )


def sdk(type_: str) -> tuple[tuple[str, Path], ...]:
    """Return the files of a type's SDK: relative to where its packages lie, and where they are on this host.

    A wheel carries them; a source tree has them beside the type's image.
    """
    packed = _SDKS / type_
    folder = packed if packed.is_dir() else _SDK_SOURCES / type_ / "sdk"
    return tuple(
        (str(path.relative_to(folder)), path)
        for path in sorted(folder.glob("*/**/*"))
        if path.is_file() and path.suffix in _SDK_FILES and "test" not in path.parts
    )


def wasmtime_package() -> Path | None:
    """Return the folder of the installed ``wasmtime``, None where there is none for this machine."""
    found = importlib.util.find_spec("wasmtime")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent
    return folder if any(folder.glob("*/*.so")) else None


def rune_program() -> Path | None:
    """Return the program that runs Rune scripts, None where there is none.

    It is what ``CRUCIBLE_RUNE`` names, else what is on ``PATH``, else what was built in this source tree.
    """
    named = os.environ.get("CRUCIBLE_RUNE")
    built = Path(crucible.__file__).parents[2] / "build/rune" / _RUNE
    for path in (named,) if named else (shutil.which(_RUNE), built):
        if path is not None and os.access(path, os.X_OK) and Path(path).is_file():
            return Path(path)
    return None


def prepare(recipe: Recipe, roots: Path, say: Callable[[str], None], cache: Path | None = None) -> Path:
    """Make a root unless it is there, and return it. Takes seconds when it makes one: run it in a thread.

    Args:
        recipe: what to make.
        roots: where it belongs.
        say: told before it takes long.
        cache: where this user's roots are kept for all control planes (:mod:`.rootcache`).
    """
    root = roots / f"{recipe.type}-{recipe.key}"
    if root.is_dir():
        return root
    roots.mkdir(mode=0o711, parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{recipe.type}-", dir=roots))
    try:
        if cache is None or not rootcache.take(cache, root.name, fresh):
            say(f"preparing the root file system for {recipe.type} plugins (once; takes some seconds)")
            _fill(recipe, fresh)
            if cache is not None:
                rootcache.keep(cache, root.name, fresh)
        fresh.chmod(0o755)
        try:
            fresh.rename(root)
        except OSError:
            if not root.is_dir():
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return root


def forget(roots: Path, kept: frozenset[Path]) -> None:
    """Delete roots of earlier releases and halves that a crash left, but for those some sandbox runs on."""
    if roots.is_dir():
        for path in roots.iterdir():
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)


def _fill(recipe: Recipe, root: Path) -> None:
    folders = (
        "etc",
        "proc",
        "tmp",
        "dev/shm",
        "plugin",
        "config",
        "run/crucible",
        "secrets",
        "data",
        "usr/bin",
    )
    for directory in folders:
        (root / directory).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text("plugin:x:1000:1000::/tmp:/nonexistent\n")
    (root / "etc/group").write_text("plugin:x:1000:\n")
    (root / "etc/hosts").write_text(HOSTS)
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
    (root / CONFIG.lstrip("/")).touch()
    assert SOURCE == "/plugin"  # noqa: S101 - made above
    for name in DEVICES:
        (root / "dev" / name).touch()
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        (root / "dev" / name).symlink_to(f"/proc/self/fd{target}")
    for place, tree in recipe.trees:
        shutil.copytree(
            tree, root / place, ignore=_left_out, dirs_exist_ok=True, ignore_dangling_symlinks=True
        )
    for place, path in recipe.files:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, root / place)
    for place, target in recipe.links:
        (root / place).symlink_to(target)
    for place in recipe.compiled:
        _compile(root, place)
    _open_to_all(root)


def _files(tree: Path) -> Iterator[Path]:
    """Yield what of a tree is put into a root, in an order that is always the same."""
    for directory, folders, names in os.walk(tree):
        left_out = _left_out(directory, [*folders, *names])
        folders[:] = sorted(set(folders) - left_out)
        yield from (Path(directory, name) for name in sorted(set(names) - left_out))


def _left_out(directory: str, names: list[str]) -> set[str]:
    return {
        name
        for name in names
        if name in PYTHON_LEFT_OUT
        or name.startswith("config-")
        or name == "lib-dynload"
        or (name.endswith((".a", ".o")) and not directory.endswith("nodejs"))
    }


def _compile(root: Path, place: str) -> None:
    """Byte-compile a tree once, never to be checked against its sources: they cannot change."""
    subprocess.run(
        [
            *(os.path.realpath("/proc/self/exe"), "-I", "-S", "-m", "compileall", "-q", "-q"),
            *("-j", str(os.cpu_count() or 1)),
            *("--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/", str(root / place)),
        ],
        check=False,  # A library may ship files that are not Python; what was not compiled still runs.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={},
    )


def _open_to_all(root: Path) -> None:
    """Let another uid read all of it, and write none."""
    for directory, _, names in os.walk(root):
        Path(directory).chmod(0o755)
        for name in names:
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 or ".so" in name else 0o644)


def _needed(binaries: tuple[Path, ...]) -> tuple[tuple[str, Path], ...]:
    """Return the loader and libraries of some programs, placed where that loader looks without a cache."""
    loader = elf.loader(binaries[0])
    if loader is None:
        return ()
    found = {library.name: library for binary in binaries for library in elf.libraries(binary, loader)}
    libc = next((path for name, path in found.items() if name.startswith("libc.")), loader)
    default = str(libc.parent).lstrip("/")
    found.pop(loader.name, None)
    return (
        (str(loader).lstrip("/"), loader),
        *((f"{default}/{name}", path) for name, path in sorted(found.items())),
    )
