"""``crucible egress``."""

from typing import Annotated, Final

import typer

from crucible.cli.options import with_serving
from crucible.serving import Serving

EXAMPLES: Final = """\b
Examples:
  crucible egress
  crucible egress --namespace team-a --replicas 2 --log-format json
  crucible operator --egress crucible-system/crucible-egress

The chart runs it with egress.enabled=true. It knows a plugin by the address of its pod, so it has to be in
the pods' network, and it lets through nobody whose pod the API server does not name. On one machine
`crucible up` needs none of this.
"""


@with_serving
def command(
    serving: Serving,
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="For plugins; pods are told 3128.")
    ] = 3128,
    replicas: Annotated[
        int,
        typer.Option(
            "--replicas",
            metavar="N",
            min=1,
            max=16,
            help="How many such proxies there are: each lets pass that part of resources.network.",
        ),
    ] = 1,
) -> None:
    """Let plugins' pods out to what their manifests list, and nowhere else, until SIGTERM."""
    from crucible.gateway import GatewayOptions, run  # noqa: PLC0415 - loads the client of clusters

    run(GatewayOptions(serving, port=port, replicas=replicas))
