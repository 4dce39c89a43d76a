"""``crucible kubeconfig``."""

import os
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml

from crucible.cli.exits import Failed, WrongUsage
from crucible.cli.files import write_file
from crucible.cli.printing import yaml_of
from crucible.control.kubeconfig import default_path, merge_kubeconfig
from crucible.errors import InvalidInput, Unavailable
from crucible.settings import Places, default_root

EXAMPLES: Final = """\b
Examples:
  crucible kubeconfig > local.yaml
  crucible kubeconfig --merge
  crucible kubeconfig --merge ~/.kube/other

--merge adds the context 'crucible' to $KUBECONFIG (its first file) or ~/.kube/config, or to the file named;
of a state folder other than the usual one 'crucible-' and eight characters made of its path.
The current context stays as it is; what was in the file before is kept beside it.
"""
_SECTIONS: Final = ("clusters", "users", "contexts")


def command(
    target: Annotated[Path | None, typer.Argument(metavar="FILE", hidden=True, show_default=False)] = None,
    state: Annotated[
        Path | None, typer.Option("--state", metavar="DIR", help="State folder of the local control plane.")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Add it to a kubeconfig: FILE, or your own.")
    ] = False,
) -> None:
    """Print the local control plane's kubeconfig, or add it to another."""
    if target is not None and not merge:
        raise WrongUsage(f"to add it to {target}, say --merge; to write it there: crucible kubeconfig > FILE")
    source = Places(state or default_root()).kubeconfig
    try:
        text = source.read_text()
    except (FileNotFoundError, NotADirectoryError):
        raise Unavailable(
            f"there is no kubeconfig at {source}: start the control plane with 'crucible up'"
        ) from None
    except PermissionError:
        raise Unavailable(f"the kubeconfig {source} belongs to someone else: run as its owner") from None
    if not merge:
        print(text, end="")
        return
    path = (target or default_path()).expanduser()
    print(_merge_into(Path(os.path.realpath(path)), _read(text, source)))


def _merge_into(path: Path, ours: dict[str, Any]) -> str:
    """Merge under the lock that kubectl takes too; return what was done."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = path.with_name(f"{path.name}.lock")
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise Failed(f"{path} is being changed by another program; if none runs, remove {lock}") from None
    try:
        before = path.read_text() if path.exists() else None
        existing = _read(before, path) if before else {}
        merged = merge_kubeconfig(existing, ours)
        if merged == existing:
            return f"{path} unchanged: it has the context {ours['current-context']}"
        if before is not None:
            write_file(path.with_name(f"{path.name}.before-crucible"), before.encode())
        write_file(path, yaml_of(merged).encode())
    finally:
        lock.unlink()
    return f"{path} configured: kubectl --context {ours['current-context']} get plugins"


def _read(text: str, path: Path) -> dict[str, Any]:
    """Return a kubeconfig's content.

    Raises:
        InvalidInput: it is none.
    """
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidInput(f"{path} is no YAML: {error}") from None
    if config is None:
        return {}
    lists = isinstance(config, dict) and all(isinstance(config.get(name) or [], list) for name in _SECTIONS)
    if not lists or any(not isinstance(item, dict) for name in _SECTIONS for item in config.get(name) or []):
        raise InvalidInput(f"{path} is no kubeconfig: mend it, or name another file")
    found: dict[str, Any] = config
    return found
