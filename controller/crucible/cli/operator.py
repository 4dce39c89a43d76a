"""``crucible operator``."""

import os
import socket
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from crucible import __version__
from crucible.cli.options import (
    HealthPort,
    ImagePullPolicy,
    ImageTag,
    LogAs,
    LogFormat,
    MetricsPort,
    OutsideCluster,
    PullPolicy,
    Verbose,
)
from crucible.cli.volumes import claim_volumes

EXAMPLES: Final = """\b
Examples:
  crucible operator
  crucible operator --namespace team-a --namespace team-b
  crucible operator --images example.org/crucible --image-tag 1.0.0 --log-format json

Inside a cluster it signs in with the pod's service account, elsewhere with the kubeconfig that
--kubeconfig or KUBECONFIG names. Of several one works, the one that holds the Lease; the others stand by.
It listens on every address of its pod: what it serves there is health and figures, nothing else.
"""


class UserNamespaces(StrEnum):
    """Whether plugins get a user namespace of their own."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class NetworkPolicies(StrEnum):
    """Whether the cluster's network enforces NetworkPolicies; it has no way to say so itself."""

    ENFORCED = "enforced"
    UNKNOWN = "unknown"


def command(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            "--namespace", "-n", metavar="NS", help="Run the plugins of this one; repeatable. Default: all."
        ),
    ] = None,
    lease_namespace: Annotated[
        str,
        typer.Option(
            "--lease-namespace", metavar="NS", help="Where the Lease is. Default: the operator's own."
        ),
    ] = "",
    identity: Annotated[
        str,
        typer.Option("--identity", metavar="NAME", help="Whom the Lease names. Default: the host's name."),
    ] = "",
    images: Annotated[
        str, typer.Option("--images", metavar="PREFIX", help="Types run from PREFIX/TYPE:TAG.")
    ] = "crucible",
    image_tag: ImageTag = __version__,
    image_pull_policy: ImagePullPolicy = PullPolicy.IF_NOT_PRESENT,
    image_pull_secret: Annotated[
        str,
        typer.Option("--image-pull-secret", metavar="NAME", help="A Secret in each namespace of plugins."),
    ] = "",
    seccomp: Annotated[
        str,
        typer.Option(
            "--seccomp",
            metavar="FILE",
            envvar="CRUCIBLE_SECCOMP",
            help="A localhost profile of every node; {type} in it is the plugin's. Default: RuntimeDefault.",
        ),
    ] = "",
    user_namespaces: Annotated[
        UserNamespaces,
        typer.Option(
            "--user-namespaces",
            metavar="auto|on|off",
            envvar="CRUCIBLE_USER_NAMESPACES",
            help="auto: where every node says it has them (Kubernetes 1.33).",
        ),
    ] = UserNamespaces.AUTO,
    network_policies: Annotated[
        NetworkPolicies,
        typer.Option(
            "--network-policies",
            metavar="enforced|unknown",
            envvar="CRUCIBLE_NETWORK_POLICIES",
            help="Vouch that the cluster's network enforces them; a cluster cannot be asked.",
        ),
    ] = NetworkPolicies.UNKNOWN,
    vm_runtime_class: Annotated[
        str,
        typer.Option(
            "--vm-runtime-class",
            metavar="NAME",
            envvar="CRUCIBLE_VM_RUNTIME_CLASS",
            help="The RuntimeClass for isolation vm. Default: none, it is refused.",
        ),
    ] = "",
    priority_class: Annotated[
        str,
        typer.Option(
            "--priority-class", metavar="NAME", envvar="CRUCIBLE_PRIORITY_CLASS", help="Of plugins' pods."
        ),
    ] = "",
    volume: Annotated[
        list[str] | None,
        typer.Option(
            "--volume",
            metavar="NAME=CLAIM[:ro|:GROUP]",
            help="Offer plugins the claim of this name in their own namespace; repeatable.",
        ),
    ] = None,
    egress: Annotated[
        str,
        typer.Option(
            "--egress",
            metavar="NS/SERVICE",
            envvar="CRUCIBLE_EGRESS_SERVICE",
            help="The Service of `crucible egress`. Default: none, network.connect is refused.",
        ),
    ] = "",
    bus: Annotated[
        str,
        typer.Option(
            "--bus",
            metavar="NS/SERVICE",
            envvar="CRUCIBLE_BUS_SERVICE",
            help="The Service of `crucible broker`. Default: none, plugins on the bus are refused.",
        ),
    ] = "",
    stores: Annotated[
        bool,
        typer.Option(
            "--stores",
            envvar="CRUCIBLE_BUS_STORES",
            help="Those brokers have a backbone. Default: no, capabilities.store is refused.",
        ),
    ] = False,
    health_port: HealthPort = 8080,
    metrics_port: MetricsPort = 9090,
    kubeconfig: OutsideCluster = None,
    alerts: Annotated[
        str,
        typer.Option(
            "--alerts",
            metavar="URL|FILE",
            envvar="CRUCIBLE_ALERTS",
            help="Tell an Alertmanager what is wrong.",
        ),
    ] = "",
    log_format: LogAs = LogFormat.TEXT,
    verbose: Verbose = False,
) -> None:
    """Run plugins as pods of a cluster, until SIGTERM; the plugins go on."""
    from crucible.operating import Images, OperatorOptions, run  # noqa: PLC0415 - loads the whole operator
    from crucible.telemetry.alerts import read_receiver  # noqa: PLC0415 - the same

    run(
        OperatorOptions(
            namespaces=tuple(dict.fromkeys(namespace or ())),
            lease_namespace=lease_namespace,
            identity=identity or os.environ.get("POD_NAME") or socket.gethostname(),
            images=Images(images.rstrip("/"), image_tag, image_pull_policy.value, image_pull_secret),
            seccomp=seccomp,
            user_namespaces=user_namespaces.value,
            network_policies=network_policies is NetworkPolicies.ENFORCED,
            vm_runtime_class=vm_runtime_class,
            priority_class=priority_class,
            volumes=claim_volumes(volume or ()),
            egress=egress,
            bus=bus,
            stores=stores,
            health_port=health_port,
            metrics_port=metrics_port,
            kubeconfig=kubeconfig,
            alerts=read_receiver(alerts, Path.cwd()) if alerts else None,
            log_format=log_format.value,
            verbose=verbose,
        )
    )
