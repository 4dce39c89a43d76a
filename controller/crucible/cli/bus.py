"""``crucible bus``."""

import json
import logging
import signal
import sys
import threading
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from crucible.cli.exits import WrongUsage
from crucible.cli.printing import yaml_of
from crucible.cli.terminal import note
from crucible.errors import InvalidInput

EXAMPLES: Final = """\b
Examples:
  crucible bus certificates --authority ~/crucible-bus | kubectl apply -f -
  crucible bus certificates --authority ~/crucible-bus --without-nats -n tools --name plugins-bus
  crucible bus reload --certificates /tls

The first makes three Secrets, for the chart with bus.nats.enabled=true: what plugins' pods believe
(NAME-tls), and what brokers and NATS server show each other (NAME-nats-client, NAME-nats-server). The
authority is made in that folder the first time. Keep the folder: its key can make anybody a broker. The
same command, run again before --days are over, renews them; nobody's connection ends. To change the
authority, make another folder and name the old one's certificate with --trust, until every pod has read
the new one.
"""


class Verb(StrEnum):
    """What to do."""

    CERTIFICATES = "certificates"
    RELOAD = "reload"


class Form(StrEnum):
    """How to print manifests."""

    YAML = "yaml"
    JSON = "json"


def command(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    verb: Annotated[Verb, typer.Argument(metavar="certificates|reload", hidden=True)],
    authority: Annotated[
        Path | None,
        typer.Option("--authority", metavar="DIR", help="Folder of who signs; made the first time."),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Of the broker's Service.")
    ] = "crucible-bus",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NS", help="Of the chart's release.")
    ] = "crucible-system",
    days: Annotated[
        int, typer.Option("--days", metavar="N", min=1, max=1825, help="For which certificates are good.")
    ] = 365,
    trust: Annotated[
        list[Path] | None,
        typer.Option("--trust", metavar="FILE", help="Certificates of who is believed too; repeatable."),
    ] = None,
    without_nats: Annotated[
        bool, typer.Option("--without-nats", help="Only what plugins' pods believe: NATS has its own.")
    ] = False,
    output: Annotated[Form, typer.Option("--output", "-o", metavar="yaml|json", help="How to print.")] = (
        Form.YAML
    ),
    certificates: Annotated[
        Path | None,
        typer.Option("--certificates", metavar="DIR", help="reload: the folder that is looked at."),
    ] = None,
) -> None:
    """Make the certificates of a cluster's bus, or have its NATS server read them anew."""
    if verb is Verb.RELOAD:
        if certificates is None:
            raise WrongUsage("bus reload --certificates DIR")
        _reload(certificates)
        return
    if authority is None:
        raise WrongUsage("bus certificates --authority DIR")
    _certificates(authority, name, namespace, days, trust or (), nats=not without_nats, output=output)


def _certificates(  # noqa: PLR0913 - what the Secrets are
    folder: Path,
    name: str,
    namespace: str,
    days: int,
    trust: list[Path] | tuple[()],
    *,
    nats: bool,
    output: Form,
) -> None:
    from crucible.backbone.authority import authority_in, expiry, utc_now  # noqa: PLC0415 - help needs none of it
    from crucible.backbone.mounted import certificates_in  # noqa: PLC0415 - the same
    from crucible.backbone.secrets import Wanted, secrets  # noqa: PLC0415 - the same

    now = utc_now()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        signer = authority_in(folder, now)
    except OSError as error:
        raise InvalidInput(f"{folder}: {error.strerror}") from error
    until = expiry(signer.certificate)
    life = timedelta(days=days)
    if until is not None and until < now + life:
        raise InvalidInput(
            f"{folder}: the authority ends before, on {until:%Y-%m-%d}: make one in another folder"
        )
    trusted = "".join(certificates_in(each) for each in trust)
    found = secrets(signer, Wanted(name, namespace, life, trusted, nats), now)
    if output is Form.JSON:
        print(json.dumps({"apiVersion": "v1", "kind": "List", "items": found}, indent=1))
    else:
        print("---\n".join(map(yaml_of, found)), end="")
    if sys.stdout.isatty():
        note("these hold private keys: crucible bus certificates … | kubectl apply -f -")


def _reload(folder: Path) -> None:
    from crucible.backbone.reloading import called, watch  # noqa: PLC0415 - help does not need it

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    watch(folder, lambda: called("nats-server"), stop)
