"""``crucible freeze``."""

import time
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from crucible.cli.api import Api
from crucible.cli.changing import annotate_each, wait_for_each
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.exits import Failed
from crucible.cli.objects import condition, plugin_path
from crucible.cli.options import Names, Timeout, with_access
from crucible.cli.waiting import seconds_of
from crucible.model import names
from crucible.model.status import format_time

EXAMPLES: Final = """\b
Examples:
  crucible freeze word-count
  crucible freeze word-count tokenizer --no-wait

A frozen plugin keeps its memory and its connections, and does nothing: crucible thaw lets it go on.
"""


@with_access
def command(
    access: Access,
    plugins: Names = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return only when all are frozen.")] = True,
    timeout: Timeout = "60s",
) -> None:
    """Hold every instance of plugins still, where it is."""
    limit = seconds_of(timeout)
    with Api(endpoint_of(access)) as api:
        namespace = access.namespace or api.namespace
        asked = format_time(time.time())
        for name in plugins or ():
            _check(name, api.get(plugin_path(namespace, name)))
        paths = annotate_each(api, namespace, plugins, {names.FROZEN: asked}, "asked to freeze")

        def settled(plugin: Mapping[str, Any]) -> bool:
            why = condition(plugin, "Degraded")
            if why.get("reason") == "FreezeUnavailable":
                name = plugin["metadata"]["name"]
                api.patch(paths[name], {"metadata": {"annotations": {names.FROZEN: None}}})
                raise Failed(f"{name} goes on: {why.get('message')}")
            still = condition(plugin, "Progressing").get("status") == "False"
            return still and (plugin.get("status") or {}).get("phase") == "Frozen"

        wait_for_each(api, paths if wait else {}, limit, "frozen", settled)


def _check(name: str, plugin: Mapping[str, Any]) -> None:
    """See that there can be something to hold still.

    Raises:
        Failed: there is nothing, and will not be.
    """
    if (plugin.get("spec") or {}).get("suspend"):
        raise Failed(f"{name} is suspended: nothing of it runs")
    if (plugin.get("status") or {}).get("phase") == "Refused":
        raise Failed(f"{name} is refused, and does not run: {condition(plugin, 'Ready').get('message')}")
