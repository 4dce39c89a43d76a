"""``crucible egress``."""

from typing import Annotated, Final

import typer

from crucible.cli.options import (
    AddressWait,
    HealthPort,
    ListenAddress,
    LogAs,
    LogFormat,
    MetricsPort,
    OutsideCluster,
    ServedNamespaces,
    Verbose,
)

EXAMPLES: Final = """\b
Examples:
  crucible egress
  crucible egress --namespace team-a --replicas 2 --log-format json
  crucible operator --egress crucible-system/crucible-egress

The chart runs it with egress.enabled=true. It knows a plugin by the address of its pod, so it has to be in
the pods' network, and it lets through nobody whose pod the API server does not name. On one machine
`crucible up` needs none of this.
"""


def command(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    namespace: ServedNamespaces = None,
    address: ListenAddress = "",
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
    wait: AddressWait = 10.0,
    health_port: HealthPort = 8080,
    metrics_port: MetricsPort = 9090,
    kubeconfig: OutsideCluster = None,
    log_format: LogAs = LogFormat.TEXT,
    verbose: Verbose = False,
) -> None:
    """Let plugins' pods out to what their manifests list, and nowhere else, until SIGTERM."""
    from crucible.gateway import GatewayOptions, run  # noqa: PLC0415 - loads the client of clusters

    run(
        GatewayOptions(
            namespaces=tuple(dict.fromkeys(namespace or ())),
            address=address,
            port=port,
            replicas=replicas,
            wait=wait,
            health_port=health_port,
            metrics_port=metrics_port,
            kubeconfig=kubeconfig,
            log_format=log_format.value,
            verbose=verbose,
        )
    )
