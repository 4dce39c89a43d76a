"""``crucible exec``."""

import sys
from typing import Annotated, Final

import typer

from crucible.cli.api import Api
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.exits import WrongUsage
from crucible.cli.instances import instances, newest
from crucible.cli.objects import core, plugin_path
from crucible.cli.options import Name, with_access
from crucible.cli.terminal import note
from crucible.errors import NotFound

EXAMPLES: Final = """\b
Examples:
  crucible exec word-count -- python3 -c 'import os; print(os.listdir("/plugin"))'
  crucible exec word-count -i -- python3 - < script.py
  crucible exec word-count -it -- python3
  crucible exec word-count --instance word-count-1-4 -- python3 -V

The command is held to all that its plugin is: file systems, limits, user, system calls. It must be in
there: a sandbox has the interpreter of the plugin's type and no shell. Ends with the command's exit code;
126 and 127 say that it cannot be executed or is not there.
"""


@with_access
def command(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    access: Access,
    plugin: Name,
    words: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND [ARG]...", hidden=True, help="The command.")
    ],
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Send it standard input.")] = False,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Give it a terminal.")] = False,
    instance: Annotated[
        str | None, typer.Option("--instance", metavar="NAME", help="In this one; default: the first's.")
    ] = None,
) -> None:
    """Run a command inside an instance of a plugin, beside its program."""
    if tty and not stdin:
        raise WrongUsage("a terminal without input is of no use: add -i")
    if tty and not sys.stdin.isatty():
        note("standard input is no terminal, so the command gets none")
        tty = False
    endpoint = endpoint_of(access)
    with Api(endpoint) as api:
        namespace = access.namespace or api.namespace
        chosen = _chosen(api, namespace, plugin, instance)
    from crucible.cli.entering import Entry, enter  # noqa: PLC0415 - what it needs loads slowly

    entry = Entry(f"{core(namespace, 'pods')}/{chosen}/exec", tuple(words), stdin, tty)
    raise typer.Exit(enter(endpoint, entry))


def _chosen(api: Api, namespace: str, plugin: str, instance: str | None) -> str:
    """Return the instance: the one named, or the newest of the first replica."""
    found = instances(api, namespace, plugin)
    if instance is not None:
        if instance in {str(name) for name in found}:
            return instance
        raise NotFound(f"{plugin} has no instance {instance}: see 'crucible describe {plugin}'")
    if not found:
        api.get(plugin_path(namespace, plugin))  # says so when it is the plugin that does not exist
        raise NotFound(f"{plugin} has no instance yet: see 'crucible describe {plugin}'")
    return str(newest(found)[0])
