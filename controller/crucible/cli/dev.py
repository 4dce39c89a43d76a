"""``crucible dev``."""

import signal
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from crucible.cli.exits import WrongUsage
from crucible.cli.up import RuntimeName
from crucible.errors import InvalidInput, NotFound
from crucible.manifests.folder import OWN_FILE
from crucible.model.quantity import parse_duration

EXAMPLES: Final = """\b
Examples:
  crucible dev word-count/
  crucible dev . -f deploy/plugin.yaml
  crucible dev . --runtime docker
  crucible dev . --state ~/.local/state/crucible

Every save makes a new version that starts beside the old one and takes over once it has run for a second
(spec.update.verify, if the manifest says rolling). A version that crashes, or a manifest with a mistake, is
shown, and the old version goes on. What the plugin writes is printed, with the instance's name before it.

Without --state a control plane is started for this session, and removed with it. With --state the one that
runs there is used, or one is started there for as long as this takes. Ctrl-C stops the plugin, deletes it
and everything that was started, and ends with 0.
"""
_LONGEST: Final = 60.0


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", hidden=True, help="The plugin's folder.", show_default=False)
    ],
    file: Annotated[
        Path | None,
        typer.Option("--filename", "-f", metavar="FILE", help=f"Its manifest; else DIR/{OWN_FILE}."),
    ] = None,
    state: Annotated[
        Path | None, typer.Option("--state", metavar="DIR", help="Use, or start, the control plane there.")
    ] = None,
    runtime: Annotated[
        RuntimeName,
        typer.Option("--runtime", metavar="process|docker", help="What runs it, where one is started."),
    ] = RuntimeName.PROCESS,
    debounce: Annotated[
        str, typer.Option("--debounce", metavar="TIME", help="How long no file may change before it counts.")
    ] = "100ms",
) -> None:
    """Run the plugin of a folder, and reload it on every save, until Ctrl-C."""
    root, manifest = _checked(folder, file, state)
    quiet = _seconds(debounce)
    from crucible.cli.private import PrivatePlane  # noqa: PLC0415 - help needs none of it
    from crucible.cli.saves import Folder  # noqa: PLC0415
    from crucible.cli.session import Session, read_plugin  # noqa: PLC0415

    first = read_plugin(manifest, root)  # a mistake is said before anything starts
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's shell has us ignore it
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with PrivatePlane(state, runtime.value) as plane:
        session = Session(plane, Folder(root, manifest, quiet), first)
        try:
            session.run()
        except KeyboardInterrupt:
            pass
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # what follows has its own time limits
            session.clean_up()


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _checked(folder: Path, file: Path | None, state: Path | None) -> tuple[Path, Path]:
    """Return the folder and its manifest, absolute.

    Raises:
        NotFound: one of them is not there.
        InvalidInput: the state folder lies in the plugin's, so that watching it would never end.
    """
    if not folder.is_dir():
        raise NotFound(f"{folder}: there is no such folder: name the one that holds the plugin")
    root = folder.resolve()
    if state is not None and state.resolve().is_relative_to(root):
        raise InvalidInput(f"{folder}: the state folder {state} lies in it: keep the two apart")
    if file is None and not (folder / OWN_FILE).is_file():
        raise NotFound(
            f"{folder / OWN_FILE}: there is no such file: write the plugin's manifest, or name it with -f"
        )
    if file is not None and not file.is_file():
        raise NotFound(f"{file}: there is no such file")
    return root, (root / OWN_FILE if file is None else file.resolve())


def _seconds(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise WrongUsage(f"--debounce: {error}") from None
    if not 0 < seconds <= _LONGEST:
        raise WrongUsage(f"--debounce: {text} is not between 1ms and {_LONGEST:g}s")
    return seconds
