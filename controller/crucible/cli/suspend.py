"""``crucible suspend``."""

from typing import Annotated, Final

import typer

from crucible.cli.api import Api
from crucible.cli.changing import at_rest, change_each, wait_for_each
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.options import Names, Timeout, with_access
from crucible.cli.waiting import seconds_of

EXAMPLES: Final = """\b
Examples:
  crucible suspend word-count
  crucible suspend word-count tokenizer --wait

Sets spec.suspend; what the manifest says counts again when it is applied again.
"""


@with_access
def command(
    access: Access,
    plugins: Names = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Return only when all have stopped.")
    ] = False,
    timeout: Timeout = "60s",
) -> None:
    """Stop every instance of plugins, and keep everything else."""
    limit = seconds_of(timeout)
    with Api(endpoint_of(access)) as api:
        paths = change_each(api, access.namespace or api.namespace, plugins, {"suspend": True}, "suspended")
        wait_for_each(api, paths if wait else {}, limit, "stopped", at_rest)
