"""``crucible thaw``."""

from typing import Annotated, Final

import typer

from crucible.cli.api import Api
from crucible.cli.changing import annotate_each, wait_for_each
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.options import Names, Timeout, with_access
from crucible.cli.waiting import seconds_of
from crucible.model import names

EXAMPLES: Final = """\b
Examples:
  crucible thaw word-count
  crucible thaw word-count tokenizer --wait
"""


@with_access
def command(
    access: Access,
    plugins: Names = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return only when all are ready.")] = False,
    timeout: Timeout = "60s",
) -> None:
    """Let frozen plugins go on."""
    limit = seconds_of(timeout)
    with Api(endpoint_of(access)) as api:
        namespace = access.namespace or api.namespace
        paths = annotate_each(api, namespace, plugins, {names.FROZEN: None}, "thawed")
        wait_for_each(api, paths if wait else {}, limit, "ready")
