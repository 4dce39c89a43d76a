"""``crucible version``."""

import json
from typing import Annotated, Any, Final

import typer

from crucible import __version__
from crucible.cli.endpoint import Access
from crucible.cli.options import Data, DataOutput, with_access

EXAMPLES: Final = """\b
Examples:
  crucible version
  crucible version --client -o json
"""
_SECONDS: Final = 2.0


@with_access
def command(
    access: Access,
    output: DataOutput = Data.TEXT,
    client: Annotated[bool, typer.Option("--client", help="Ask no control plane.")] = False,
) -> None:
    """Print the versions of this program and of the control plane."""
    found: dict[str, Any] = {"client": {"version": __version__}}
    if not client:
        found["server"] = _server(access)
    match output:
        case Data.JSON:
            print(json.dumps(found, indent=2))
        case Data.YAML:
            from crucible.cli.printing import yaml_of  # noqa: PLC0415 - loads YAML

            print(yaml_of(found), end="")
        case Data.TEXT:
            print(f"crucible {__version__}")
            if not client:
                server = found["server"]
                print(f"control plane {server.get('version') or server['problem']}")


def _server(access: Access) -> dict[str, str]:
    from crucible.cli.api import Api  # noqa: PLC0415 - not needed with --client
    from crucible.cli.endpoint import endpoint_of  # noqa: PLC0415
    from crucible.errors import CrucibleError  # noqa: PLC0415

    try:
        with Api(endpoint_of(access), connect=_SECONDS, read=_SECONDS) as api:
            return {"version": str(api.get("/version").get("gitVersion", "unknown")), "address": api.server}
    except CrucibleError as error:
        return {"problem": str(error)}
