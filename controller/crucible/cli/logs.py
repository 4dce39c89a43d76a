"""``crucible logs``."""

import sys
from math import ceil
from typing import Annotated, Final

import typer

from crucible.cli.api import Api
from crucible.cli.complete import complete_plugins
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.exits import WrongUsage
from crucible.cli.instances import InstanceName, instances, newest, prefixed
from crucible.cli.objects import core, plugin_path
from crucible.cli.options import with_access
from crucible.cli.tailing import Tailing, Target
from crucible.cli.terminal import harmless, note
from crucible.errors import NotFound
from crucible.model.quantity import parse_duration

EXAMPLES: Final = """\b
Examples:
  crucible logs word-count
  crucible logs word-count -f --tail 20
  crucible logs word-count --previous
  crucible logs word-count --since 10m --timestamps
  crucible logs word-count --instance word-count-0-3

With -f the output goes on across restarts, until the plugin is deleted. On a terminal, control
characters that a plugin wrote are spelled out; to a file or a pipe its bytes go as they are.
"""


@with_access
def command(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    access: Access,
    plugin: Annotated[
        str, typer.Argument(metavar="NAME", hidden=True, autocompletion=complete_plugins, help="The plugin.")
    ],
    follows: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more is written.")] = False,
    tail: Annotated[
        int, typer.Option("--tail", metavar="N", min=-1, help="Only the last lines; -1: all that is kept.")
    ] = -1,
    previous: Annotated[bool, typer.Option("--previous", "-p", help="Of the instance before.")] = False,
    instance: Annotated[
        str | None, typer.Option("--instance", metavar="NAME", help="Of this instance only.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Only what is younger, like 30s or 2h.")
    ] = None,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Begin each line with the time it was written.")
    ] = False,
) -> None:
    """Print what a plugin wrote to its standard output and error."""
    if follows and previous:
        raise WrongUsage("the instance before has ended: drop --follow or --previous")
    params = _params(since, timestamps=timestamps)
    with Api(endpoint_of(access)) as api:
        namespace = access.namespace or api.namespace
        if follows:
            api.get(plugin_path(namespace, plugin))
            Tailing(api, Target(namespace, plugin, instance, params)).run(tail, write)
            return
        chosen = _chosen(api, namespace, plugin, instance, previous=previous)
        params |= {} if tail < 0 else {"tailLines": str(tail)}
        for name in chosen:
            label = prefixed(name, chosen)
            with api.stream(f"{core(namespace, 'pods')}/{name}/log", params, endless=False) as lines:
                for line in lines:
                    write(label, line)


def _params(since: str | None, *, timestamps: bool) -> dict[str, str]:
    """Return what to ask of the API; it counts whole seconds."""
    try:
        seconds = None if since is None else ceil(parse_duration(since))
    except ValueError as error:
        raise WrongUsage(f"--since: {error}") from error
    young = {} if seconds is None else {"sinceSeconds": str(max(seconds, 1))}
    return young | ({"timestamps": "true"} if timestamps else {})


def _chosen(
    api: Api, namespace: str, plugin: str, instance: str | None, *, previous: bool
) -> tuple[InstanceName, ...]:
    """Return the instances to print: the newest of each replica, or the one before, or the one named."""
    found = instances(api, namespace, plugin)
    if instance is not None:
        found = tuple(name for name in found if str(name) == instance)
        if not found:
            raise NotFound(f"{plugin} has no instance {instance}: see 'crucible describe {plugin}'")
        return found
    chosen = newest(found, before=previous)
    if not chosen:
        api.get(plugin_path(namespace, plugin))  # says so when it is the plugin that does not exist
        if previous:
            raise NotFound(f"{plugin} has no instance before this one, or its output is gone")
        note(f"{plugin} has no instance yet: see 'crucible describe {plugin}'")
    return chosen


def write(label: str, line: bytes) -> None:
    """Print one line of output, harmless on a terminal, as it is elsewhere."""
    if sys.stdout.isatty():
        print(label + harmless(line.decode(errors="backslashreplace")), flush=True)
    else:
        sys.stdout.buffer.write(label.encode() + line + b"\n")
        sys.stdout.buffer.flush()
