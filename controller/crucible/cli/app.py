"""The entry point: finds the command, loads only that, and turns errors into exit codes."""

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Final, cast

import typer
from typer.core import TyperCommand, TyperGroup

from crucible import __version__
from crucible.cli import exits
from crucible.cli.terminal import complain
from crucible.errors import CrucibleError

_ABOUT: Final = """Run plugins you do not fully trust, isolated and kept healthy.

\b
Start here:
  crucible doctor                what this host offers, and what is missing
  crucible up                    the control plane, on this machine
  crucible apply -f plugin.yaml  a plugin
  crucible get -w                how it is doing

\b
Exit codes: 0 done · 1 it failed, or time ran out · 2 wrong usage · 3 not found
            4 refused, nothing was changed · 5 no control plane answers
"""
_SETTINGS: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@dataclass(frozen=True, slots=True)
class _Entry:
    module: str
    about: str


_COMMANDS: Final = {
    "up": _Entry("up", "Run the control plane on this machine."),
    "down": _Entry("down", "Stop it, and every plugin it runs."),
    "service": _Entry("service", "Run it as a service of systemd, from boot on."),
    "dev": _Entry("dev", "Run a plugin while you write it: every save takes over."),
    "apply": _Entry("apply", "Create or change plugins from manifests."),
    "get": _Entry("get", "List plugins."),
    "describe": _Entry("describe", "Show one plugin: state, instances, limits, events."),
    "logs": _Entry("logs", "Print what a plugin wrote."),
    "exec": _Entry("exec", "Run a command inside an instance."),
    "call": _Entry("call", "Call a method of a plugin."),
    "store": _Entry("store", "Read and change what a plugin keeps."),
    "backbone": _Entry("backbone", "Invite other machines: plugins there and here are on one bus."),
    "top": _Entry("top", "Show what instances use."),
    "events": _Entry("events", "List what happened."),
    "restart": _Entry("restart", "Replace every instance of plugins."),
    "history": _Entry("history", "List the revisions that a plugin went through."),
    "rollback": _Entry("rollback", "Run an earlier revision of a plugin."),
    "scale": _Entry("scale", "Change how many instances of plugins run."),
    "suspend": _Entry("suspend", "Stop every instance of plugins, and keep everything else."),
    "resume": _Entry("resume", "Run suspended plugins again."),
    "freeze": _Entry("freeze", "Hold every instance of plugins still, where it is."),
    "thaw": _Entry("thaw", "Let frozen plugins go on."),
    "delete": _Entry("delete", "Stop plugins and remove all that was made for them."),
    "release": _Entry("release", "Let deleted plugins go whose operator is gone for good."),
    "operator": _Entry("operator", "Run plugins as pods of a Kubernetes cluster."),
    "egress": _Entry("egress", "Let plugins of a Kubernetes cluster out where they may."),
    "broker": _Entry("broker", "Let plugins of a Kubernetes cluster talk to each other."),
    "bus": _Entry("bus", "Make the certificates of a cluster's bus."),
    "export": _Entry("export", "Print all that people asked for, to apply it again."),
    "backup": _Entry("backup", "Copy everything the local control plane keeps into one file."),
    "restore": _Entry("restore", "Put a backup in the place of what it kept."),
    "kubeconfig": _Entry("kubeconfig", "Print the local kubeconfig, or add it to yours."),
    "doctor": _Entry("doctor", "Say what this host can enforce, and each gap's fix."),
    "learn": _Entry("learn", "Watch a plugin, and propose its smallest manifest."),
    "seccomp": _Entry("seccomp", "Print the system call profile of a plugin type."),
    "schema": _Entry("schema", "Print the manifest's JSON Schema, or the CRD."),
    "version": _Entry("version", "Print the versions of this program and of the control plane."),
}


class _Lazy(TyperCommand):
    """Stands for a command until it is called: its module is imported only then."""

    def __init__(self, name: str, entry: _Entry) -> None:
        super().__init__(name=name, help=entry.about, rich_markup_mode=None)
        self._module = entry.module

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: Any = None,  # noqa: ANN401 - a type of typer's that has moved between releases
        **extra: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Load the command and hand over to it."""
        module = import_module(f"crucible.cli.{self._module}")
        loaded = typer.Typer(add_completion=False, rich_markup_mode=None)
        loaded.command(name=self.name, epilog=getattr(module, "EXAMPLES", None))(module.command)
        command = typer.main.get_command(loaded)
        return command.make_context(info_name, args, parent=parent, **extra, **_SETTINGS)


def commands() -> TyperGroup:
    """Return the whole command line."""
    app = typer.Typer(
        name="crucible",
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings=dict(_SETTINGS),
    )

    @app.callback(help=_ABOUT)
    def root(
        version: Annotated[
            bool,
            typer.Option(
                "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
            ),
        ] = False,
    ) -> None:
        del version

    group = cast("TyperGroup", typer.main.get_command(app))
    group.commands = {name: _Lazy(name, entry) for name, entry in _COMMANDS.items()}
    return group


def _print_version(asked: bool) -> None:
    if asked:
        print(f"crucible {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code. This is the one place that errors end."""
    try:
        try:
            commands().main(arguments, prog_name="crucible")
        finally:
            sys.stdout.flush()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else exits.FAILED
    except CrucibleError as error:
        for line in exits.lines_of(error):
            complain(line)
        return exits.code_of(error)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        # The interpreter would complain when it flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.BROKEN_PIPE
    except OSError as error:
        complain(str(error))
        return exits.FAILED
    return 0
