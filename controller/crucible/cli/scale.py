"""``crucible scale``."""

from typing import Annotated, Final

import typer

from crucible.cli.api import Api
from crucible.cli.changing import change_each, wait_for_each
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.options import Names, Timeout, with_access
from crucible.cli.waiting import seconds_of

EXAMPLES: Final = """\b
Examples:
  crucible scale word-count --replicas 3
  crucible scale word-count tokenizer --replicas 0 --wait
"""


@with_access
def command(
    access: Access,
    replicas: Annotated[
        int, typer.Option("--replicas", "-r", min=0, max=100, help="How many instances run.", metavar="N")
    ],
    plugins: Names = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return only when all are ready.")] = False,
    timeout: Timeout = "60s",
) -> None:
    """Change how many instances of plugins run."""
    limit = seconds_of(timeout)
    with Api(endpoint_of(access)) as api:
        namespace = access.namespace or api.namespace
        paths = change_each(api, namespace, plugins, {"replicas": replicas}, "scaled")
        wait_for_each(api, paths if wait else {}, limit, "ready")
