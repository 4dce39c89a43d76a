"""``crucible up``."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from crucible.cli.terminal import colourful, paint
from crucible.settings import Places, default_root

EXAMPLES: Final = """\b
Examples:
  crucible up
  crucible up --state ./state --port 6443
  crucible up --log-format json

Stopping it with Ctrl-C leaves the plugins running; the next 'crucible up' with the same state takes
them over. To stop plugins, delete or suspend them first.
"""


class LogFormat(StrEnum):
    """How to write the log."""

    TEXT = "text"
    JSON = "json"


class RuntimeName(StrEnum):
    """What runs the plugins."""

    PROCESS = "process"


def command(
    state: Annotated[
        Path | None, typer.Option("--state", metavar="DIR", help="Where everything is kept; made if absent.")
    ] = None,
    runtime: Annotated[
        RuntimeName, typer.Option("--runtime", metavar="process", help="What runs the plugins.")
    ] = RuntimeName.PROCESS,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="On 127.0.0.1; 0: the same free one each time.")
    ] = 0,
    log_format: Annotated[
        LogFormat, typer.Option("--log-format", metavar="text|json", help="How to write the log.")
    ] = LogFormat.TEXT,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every step.")] = False,
) -> None:
    """Run the control plane on this machine, until Ctrl-C."""
    from crucible.bootstrap import UpOptions, run  # noqa: PLC0415 - loads the whole operator; help does not

    root = (state or default_root()).absolute()
    run(
        UpOptions(
            places=Places(root),
            runtime=runtime.value,
            port=port,
            log_format=log_format.value,
            verbose=verbose,
            on_ready=lambda kubeconfig: _welcome(kubeconfig, default=root == default_root()),
        )
    )


def _welcome(kubeconfig: Path, *, default: bool) -> None:
    """Say where the control plane is, and what to try next."""
    where = "" if default else f" --kubeconfig {shlex.quote(str(kubeconfig))}"
    on = colourful()
    print(f"\n{paint('The control plane is ready.', 'green', on=on)} Its kubeconfig: {kubeconfig}")
    print("Try, in another terminal:")
    print(f"  crucible apply -f plugin.yaml{where}")
    print(f"  crucible get -w{where}\n", flush=True)
