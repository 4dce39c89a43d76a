"""How the programs are run that serve the pods of a cluster's plugins: the egress proxy and the broker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from crucible.telemetry.logs import Format


@dataclass(frozen=True, slots=True)
class Serving:
    """What both are told; the words are those of ``crucible egress --help``.

    Attributes:
        namespaces: whose pods are served; none: all.
        address: where to listen; empty: everywhere.
        wait: seconds until the cluster has to have said whose a connection is.
        health_port: where ``/healthz`` and ``/readyz`` are answered; 0: at any.
        metrics_port: where ``/metrics`` is; may be the same.
        kubeconfig: how to reach the API server from outside of a cluster.
        log_format: of the log.
        verbose: log every step.
    """

    namespaces: tuple[str, ...] = ()
    address: str = ""
    wait: float = 10.0
    health_port: int = 8080
    metrics_port: int = 9090
    kubeconfig: Path | None = None
    log_format: Format = "text"
    verbose: bool = False
