"""``crucible broker``."""

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
  crucible broker
  crucible broker --namespace team-a --log-format json
  crucible operator --bus crucible-system/crucible-bus

The chart runs it with bus.enabled=true. It knows a plugin by the address of its pod, so it has to be in the
pods' network, and it serves nobody whose pod the API server does not name. On one machine `crucible up`
needs none of this.
"""


def command(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    namespace: ServedNamespaces = None,
    address: ListenAddress = "",
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="For plugins; pods are told 3129.")
    ] = 3129,
    wait: AddressWait = 10.0,
    health_port: HealthPort = 8080,
    metrics_port: MetricsPort = 9090,
    kubeconfig: OutsideCluster = None,
    log_format: LogAs = LogFormat.TEXT,
    verbose: Verbose = False,
) -> None:
    """Pass on what plugins' pods say to each other, as far as their manifests allow it, until SIGTERM."""
    from crucible.clusterbus import BrokerOptions, run  # noqa: PLC0415 - loads the client of clusters

    run(
        BrokerOptions(
            namespaces=tuple(dict.fromkeys(namespace or ())),
            address=address,
            port=port,
            wait=wait,
            health_port=health_port,
            metrics_port=metrics_port,
            kubeconfig=kubeconfig,
            log_format=log_format.value,
            verbose=verbose,
        )
    )
