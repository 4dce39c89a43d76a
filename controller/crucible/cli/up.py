"""``crucible up``."""

import errno
import os
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from crucible.cli.exits import Failed
from crucible.cli.joining import checked
from crucible.cli.options import LogAs, LogFormat, Verbose
from crucible.cli.terminal import colourful, paint
from crucible.cli.volumes import host_volumes
from crucible.errors import CrucibleError, InvalidInput, NotFound
from crucible.settings import Places, default_root

EXAMPLES: Final = """\b
Examples:
  crucible up
  crucible up --state ./state --port 6443
  crucible up --manifests plugins/
  crucible up --runtime docker
  crucible up --alerts http://127.0.0.1:9093
  crucible up --backbone backbone.yaml
  crucible up --volume notes=/srv/notes --volume maps=/srv/maps:ro
  crucible up --log-format json

Stopping it with Ctrl-C leaves the plugins running; the next 'crucible up' with the same state takes
them over. To stop plugins, delete or suspend them first.

With --runtime docker plugins run as containers of the engine that DOCKER_HOST names, or of the usual
one; an engine that is down is waited for.

With --manifests a folder is kept applied: what is in it, and in the folders below, is created and put
back when someone changes it; what it brought is removed when no file holds it any more. A file with a
mistake is named in the log, and what it gave before stays.
"""


class RuntimeName(StrEnum):
    """What runs the plugins."""

    PROCESS = "process"
    DOCKER = "docker"


def command(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    state: Annotated[
        Path | None, typer.Option("--state", metavar="DIR", help="Where everything is kept; made if absent.")
    ] = None,
    runtime: Annotated[
        RuntimeName, typer.Option("--runtime", metavar="process|docker", help="What runs the plugins.")
    ] = RuntimeName.PROCESS,
    port: Annotated[
        int,
        typer.Option(
            "--port", metavar="PORT", min=0, max=65535, help="On 127.0.0.1; 0: the same free one each time."
        ),
    ] = 0,
    manifests: Annotated[
        Path | None, typer.Option("--manifests", metavar="DIR", help="Keep this folder applied.")
    ] = None,
    secrets_key: Annotated[
        Path | None,
        typer.Option("--secrets-key", metavar="FILE", help="Encrypt Secrets at rest; made if absent."),
    ] = None,
    alerts: Annotated[
        str,
        typer.Option(
            "--alerts",
            metavar="URL|FILE",
            envvar="CRUCIBLE_ALERTS",
            show_envvar=False,
            help="Tell an Alertmanager what is wrong.",
        ),
    ] = "",
    volume: Annotated[
        list[str] | None,
        typer.Option(
            "--volume", metavar="NAME=DIR[:ro]", help="Offer plugins a folder by this name; repeatable."
        ),
    ] = None,
    backbone: Annotated[
        Path | None,
        typer.Option("--backbone", metavar="FILE", help="Join other machines' plugins, as this file says."),
    ] = None,
    log_format: LogAs = LogFormat.TEXT,
    verbose: Verbose = False,
) -> None:
    """Run the control plane on this machine, until Ctrl-C."""
    from crucible.bootstrap import UpOptions, run  # noqa: PLC0415 - loads the whole operator; help does not
    from crucible.telemetry.alerts import read_receiver  # noqa: PLC0415 - the same

    root = (state or default_root()).absolute()
    _check_folder(manifests, root)
    options = UpOptions(
        places=Places(root),
        runtime=runtime.value,
        port=port,
        log_format=log_format.value,
        verbose=verbose,
        manifests=manifests.resolve() if manifests else None,
        secrets_key=secrets_key.absolute() if secrets_key else None,
        alerts=read_receiver(alerts, Path.cwd()) if alerts else None,
        volumes=host_volumes(volume or (), root),
        backbone=checked(backbone) if backbone else None,
        on_ready=lambda kubeconfig: _welcome(kubeconfig, default=root == default_root()),
    )
    try:
        run(options)
    except OSError as error:
        raise Failed(_reason(error, root)) from error
    except ExceptionGroup as group:
        foreseen, others = group.split(CrucibleError)
        if others is not None or foreseen is None:
            raise
        raise foreseen.exceptions[0] from None


def _check_folder(manifests: Path | None, root: Path) -> None:
    """Refuse a folder that cannot be kept applied, before anything starts."""
    if manifests is None:
        return
    if not manifests.is_dir():
        raise NotFound(f"{manifests}: there is no such folder: make it, then put manifests into it")
    if root.resolve().is_relative_to(manifests.resolve()):
        raise InvalidInput(f"{manifests}: the state folder {root} lies in it: keep the two apart")


def _reason(error: OSError, root: Path) -> str:
    """Say what the system refused, and what to do instead."""
    if error.errno == errno.EADDRINUSE:
        return "the port is taken by another program: choose another with --port, or 0 for a free one"
    what = os.strerror(error.errno) if error.errno else str(error)
    where = error.filename or root
    return f"{where}: {what}; name a folder that can be written with --state"


def _welcome(kubeconfig: Path, *, default: bool) -> None:
    """Say where the control plane is, and what to try next."""
    where = "" if default else f" --kubeconfig {shlex.quote(str(kubeconfig))}"
    on = colourful()
    print(f"\n{paint('The control plane is ready.', 'green', on=on)} Its kubeconfig: {kubeconfig}")
    print("Try, in another terminal:")
    print(f"  crucible apply -f plugin.yaml{where}")
    print(f"  crucible get -w{where}\n", flush=True)
