"""The settings of the NATS server that carries the backbone: who may do what there. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from crucible.core import backbone
from crucible.model.backbone import PORT

if TYPE_CHECKING:
    from collections.abc import Iterable

ACCOUNT: Final = "CRUCIBLE"
CERTIFICATE, KEY, AUTHORITY, JETSTREAM = "server.crt", "server.key", "ca.crt", "jetstream"
"""Names of files beside the settings."""
REPLICAS: Final = "crucible-broker"
"""What the certificate of a cluster's brokers is made out to."""
STORES: Final = "CRUCIBLE_STORES"
"""The stream of a cluster's stores; no namespace's stream is called so."""
PAYLOAD: Final = 2 * 1024 * 1024
STORE_BYTES: Final = 4 * 1024**3
STREAM_BYTES: Final = 256 * 1024**2
STREAM_SECONDS: Final = 7 * 24 * 3600
_CONNECTIONS: Final = 1024
_NANO: Final = 1_000_000_000
MONITORING: Final = 8222
"""Where the kubelet asks whether it is well."""
_KEEPING: Final = {"max_mem": 0, "sync_interval": "always"}


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with a certificate.

    Attributes:
        name: of the machine; what others see.
        identity: what its certificate is made out to.
        namespaces: in which it may tell others anything, and hear them.
        manages: it makes streams and answers who asks for a new certificate, and does nothing else.
    """

    name: str
    identity: str
    namespaces: tuple[str, ...] = ()
    manages: bool = False


def permissions(user: User) -> dict[str, Any]:
    """Return which subjects somebody may use; all others are refused by the server."""
    name = user.name
    inbox = f"_INBOX.{name}.>"
    if user.manages:
        api = [f"$JS.API.STREAM.{verb}.*" for verb in ("CREATE", "UPDATE", "INFO")]
        return {
            "publish": {"allow": api},
            "subscribe": {"allow": [inbox, backbone.renew("*")]},
            "allow_responses": {"max": 1, "expires": "10s"},
        }
    speaks = [backbone.here(name), backbone.renew(name), backbone.to("*", name)]
    for namespace in user.namespaces:
        stream = backbone.stream(namespace)
        speaks += [
            f"{backbone.PREFIX}.say.{namespace}.{name}.>",
            f"{backbone.PREFIX}.keep.{namespace}.{name}.>",
            f"$JS.API.CONSUMER.CREATE.{stream}.>",
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
            f"$JS.ACK.{stream}.>",
        ]
    hears = [*backbone.heard(name, user.namespaces), inbox]
    return {"publish": {"allow": speaks}, "subscribe": {"allow": hears}}


def replica_permissions() -> dict[str, Any]:
    """Return which subjects the brokers of a cluster may use, which are one among themselves.

    They have an account of their own: nothing of another user's is in it.
    """
    return {
        "publish": {
            "allow": [
                f"{backbone.PREFIX}.>",
                "$JS.API.STREAM.CREATE.*",
                *(f"$JS.API.STREAM.{verb}.{STORES}" for verb in ("INFO", "PURGE", "MSG.GET")),
                "$JS.API.CONSUMER.CREATE.>",
                "$JS.API.CONSUMER.MSG.NEXT.>",
                "$JS.ACK.>",
            ]
        },
        "subscribe": {"allow": [f"{backbone.PREFIX}.>", "_INBOX.>"]},
    }


def settings(host: str, port: int, users: Iterable[User]) -> str:
    """Return the server's settings, which are JSON; files are named as they lie beside them."""
    people = [
        {"user": user.identity, "permissions": permissions(user)}
        for user in sorted(users, key=lambda user: user.identity)
    ]
    found = {
        "server_name": "crucible-backbone",
        "host": host,
        "port": port,
        **_common(f"./{CERTIFICATE}", f"./{KEY}", f"./{AUTHORITY}"),
        "jetstream": {**_KEEPING, "store_dir": f"./{JETSTREAM}", "max_file": STORE_BYTES},
        "accounts": {ACCOUNT: {"jetstream": "enabled", "users": people}},
    }
    return json.dumps(found, indent=1)


def replicated() -> str:
    """Return the settings of the server that the brokers of a cluster meet at, as the chart mounts its files.

    How much it keeps is up to its volume: three quarters of what is free there.
    """
    people = [{"user": REPLICAS, "permissions": replica_permissions()}]
    found = {
        "server_name": "crucible-bus-nats",
        "port": PORT,
        "http_port": MONITORING,
        **_common("/tls/tls.crt", "/tls/tls.key", "/tls/ca.crt"),
        "jetstream": {**_KEEPING, "store_dir": "/data"},
        "accounts": {ACCOUNT: {"jetstream": "enabled", "users": people}},
    }
    return json.dumps(found, indent=1) + "\n"


def _common(certificate: str, key: str, authority: str) -> dict[str, Any]:
    return {
        "max_payload": PAYLOAD,
        "max_connections": _CONNECTIONS,
        "write_deadline": "10s",
        "tls": {
            "cert_file": certificate,
            "key_file": key,
            "ca_file": authority,
            "verify_and_map": True,
            "handshake_first": True,
            "min_version": "1.3",
            "timeout": 5,
        },
    }


def stream_settings(namespace: str, copies: int = 1) -> dict[str, Any]:
    """Return what the stream of a namespace's durable events is, kept by so many servers.

    An event stays until every subscription that was there took it, a week at most. When there is no room for
    more, who puts one is told, and none that waits is lost for it.
    """
    return {
        "name": backbone.stream(namespace),
        "subjects": [f"{backbone.PREFIX}.keep.{namespace}.>"],
        "retention": "interest",
        "storage": "file",
        "discard": "new",
        "max_bytes": STREAM_BYTES,
        "max_age": STREAM_SECONDS * _NANO,
        "max_consumers": 1024,
        "max_msgs": -1,
        "max_msg_size": PAYLOAD,
        "num_replicas": copies,
        "duplicate_window": 120 * _NANO,
        "deny_delete": True,
        "deny_purge": True,
    }


def stores_settings(copies: int) -> dict[str, Any]:
    """Return what the stream of a cluster's stores is; ``bus/mirror.py`` says what is in it."""
    return {
        "name": STORES,
        "subjects": [f"{backbone.PREFIX}.store.*.*.*"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_msg_size": PAYLOAD,
        "num_replicas": copies,
        "deny_delete": True,
    }
