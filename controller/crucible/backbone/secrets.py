"""The Secrets by which the brokers of a cluster and their NATS server know each other, as manifests."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from crucible.backbone.mounted import AUTHORITY, CERTIFICATE, KEY
from crucible.core.natsconfig import REPLICAS
from crucible.model.door import Door

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from crucible.backbone.authority import Authority, Issued

BUS, CLIENT, SERVER = "tls", "nats-client", "nats-server"
"""How their names end, after that of the broker's Service."""
_LABELS: Final = {"app.kubernetes.io/part-of": "crucible"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which Secrets.

    Attributes:
        name: of the broker's Service.
        namespace: where they all are.
        life: for how long the certificates are good.
        trusted: authorities that are believed beside ours, in PEM.
        nats: those for the backbone too.
    """

    name: str
    namespace: str
    life: timedelta
    trusted: str = ""
    nats: bool = True


def secrets(authority: Authority, wanted: Wanted, now: datetime) -> list[dict[str, Any]]:
    """Return the Secrets, with certificates made now."""
    made = {BUS: authority.server((Door.BUS,), now, wanted.life)}
    if wanted.nats:
        made[CLIENT] = authority.machine(REPLICAS, now, wanted.life)
        made[SERVER] = authority.server(hosts(wanted), now, wanted.life)
    trusted = f"{authority.certificate.strip()}\n{wanted.trusted}"
    return [_secret(f"{wanted.name}-{end}", wanted.namespace, trusted, one) for end, one in made.items()]


def hosts(wanted: Wanted) -> tuple[str, ...]:
    """Return by which names the chart's server is reached."""
    name = f"{wanted.name}-nats"
    return name, f"{name}.{wanted.namespace}", f"{name}.{wanted.namespace}.svc"


def _secret(name: str, namespace: str, authority: str, issued: Issued) -> dict[str, Any]:
    files = {AUTHORITY: authority, CERTIFICATE: issued.certificate, KEY: issued.key}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": _LABELS},
        "type": "kubernetes.io/tls",
        "data": {key: b64encode(text.encode()).decode() for key, text in files.items()},
    }
