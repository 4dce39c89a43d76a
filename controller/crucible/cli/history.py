"""``crucible history``."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from crucible.cli.api import Api
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.objects import plugin_path
from crucible.cli.options import Data, DataOutput, Name, with_access
from crucible.cli.rows import age
from crucible.cli.table import table
from crucible.cli.terminal import note

EXAMPLES: Final = """\b
Examples:
  crucible history word-count
  crucible history word-count -o json
"""
_COLUMNS: Final = ["NUMBER", "VERSION", "REVISION", "AGE", "GOOD", "NOW"]


@with_access
def command(access: Access, plugin: Name, output: DataOutput = Data.TEXT) -> None:
    """List the revisions that a plugin went through, oldest first."""
    with Api(endpoint_of(access)) as api:
        status = api.get(plugin_path(access.namespace or api.namespace, plugin)).get("status") or {}
    found = status.get("history") or []
    if output is not Data.TEXT:
        from crucible.cli.printing import data_as  # noqa: PLC0415 - loads YAML

        print(data_as(found, output), end="")
    elif found:
        print("\n".join(table([_COLUMNS, *_rows(status, found)])))
    else:
        note(f"{plugin} has run nothing yet")


def _rows(status: Mapping[str, Any], found: list[Mapping[str, Any]]) -> Iterator[list[str]]:
    for each in found:
        words = [
            *(["wanted"] if each is found[-1] else []),
            *(["runs"] if each.get("revision") == status.get("revision") else []),
        ]
        yield [
            str(each.get("number")),
            str(each.get("version")),
            str(each.get("revision")),
            age(each.get("at"), time.time()),
            "yes" if each.get("good") else "no",
            ", ".join(words),
        ]
