"""``crucible broker``."""

from pathlib import Path
from typing import Annotated, Final

import typer

from crucible.cli.exits import WrongUsage
from crucible.cli.options import with_serving
from crucible.serving import Serving

EXAMPLES: Final = """\b
Examples:
  crucible broker
  crucible broker --operator crucible-system/crucible
  crucible broker --namespace team-a --log-format json
  crucible broker --operator crucible-system/crucible --callers team-a
  crucible broker --certificates /tls --backbone tls://nats:4222 --backbone-certificates /nats
  crucible operator --bus crucible-system/crucible-bus

The chart runs it with bus.enabled=true. It knows a plugin by the address of its pod, so it has to be in the
pods' network, and it serves nobody whose pod the API server does not name. Several are one broker where they
meet at a NATS server (`crucible bus --help` makes the certificates). On one machine `crucible up` needs none
of this.
"""


@with_serving
def command(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    serving: Serving,
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="For plugins; pods are told 3129.")
    ] = 3129,
    certificates: Annotated[
        Path | None,
        typer.Option(
            "--certificates",
            metavar="DIR",
            help="ca.crt, tls.crt for the name bus, tls.key: what pods are shown. Default: made at start.",
        ),
    ] = None,
    backbone: Annotated[
        str,
        typer.Option(
            "--backbone", metavar="URL", help="The NATS server where replicas meet, tls://HOST:PORT."
        ),
    ] = "",
    backbone_certificates: Annotated[
        Path | None,
        typer.Option(
            "--backbone-certificates", metavar="DIR", help="The same three files: what that server is shown."
        ),
    ] = None,
    copies: Annotated[
        int,
        typer.Option(
            "--copies", metavar="N", min=1, max=5, help="NATS servers that keep each durable event."
        ),
    ] = 1,
    operator: Annotated[
        str,
        typer.Option(
            "--operator",
            metavar="NAMESPACE/SERVICEACCOUNT",
            help="Whose pods are the operator's, which asks and tells plugins things here; none: it cannot.",
        ),
    ] = "",
    callers: Annotated[
        list[str] | None,
        typer.Option(
            "--callers",
            metavar="NS",
            help="Who may forward ports to this pod may act in this namespace, *: in each; repeatable.",
        ),
    ] = None,
    callers_port: Annotated[
        int,
        typer.Option(
            "--callers-port", metavar="PORT", min=0, max=65535, help="For them, on the loopback alone."
        ),
    ] = 3130,
) -> None:
    """Pass on what plugins' pods say to each other, as far as their manifests allow it, until SIGTERM."""
    if bool(backbone) != (backbone_certificates is not None):
        raise WrongUsage("broker --backbone URL --backbone-certificates DIR: one goes with the other")
    if backbone and certificates is None:
        raise WrongUsage("broker --backbone URL --certificates DIR: pods have to believe every replica")
    from crucible.clusterbus import BrokerOptions, run  # noqa: PLC0415 - loads the client of clusters
    from crucible.replicated import backbone_at  # noqa: PLC0415 - the same

    run(
        BrokerOptions(
            serving,
            port=port,
            certificates=certificates,
            backbone=backbone_at(backbone, backbone_certificates, copies) if backbone_certificates else None,
            operator=operator,
            callers=tuple(dict.fromkeys(callers or ())),
            callers_port=callers_port,
        )
    )
