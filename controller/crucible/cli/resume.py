"""``crucible resume``."""

from typing import Annotated, Final

import typer

from crucible.cli.api import Api
from crucible.cli.changing import change_each, wait_for_each
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.options import Names, Timeout, with_access
from crucible.cli.waiting import seconds_of

EXAMPLES: Final = """\b
Examples:
  crucible resume word-count
  crucible resume word-count tokenizer --wait
"""


@with_access
def command(
    access: Access,
    plugins: Names = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return only when all are ready.")] = False,
    timeout: Timeout = "60s",
) -> None:
    """Run suspended plugins again."""
    limit = seconds_of(timeout)
    with Api(endpoint_of(access)) as api:
        paths = change_each(api, access.namespace or api.namespace, plugins, {"suspend": False}, "resumed")
        wait_for_each(api, paths if wait else {}, limit, "ready")
