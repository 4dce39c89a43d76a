"""The local control plane: a Kubernetes API server for plugins in one process, on one SQLite file.

It serves custom resources and the core kinds the controller touches, by the rules of the real server, so that
``kubectl``, ``helm``, kopf and the official Python client work against it unchanged.
"""

from .archive import restore_backup
from .kubeconfig import merge_kubeconfig
from .pods import ExecSession, LogOptions, PodProvider
from .server import ApiServer, export_state
from .settings import ServerSettings

__all__ = [
    "ApiServer",
    "ExecSession",
    "LogOptions",
    "PodProvider",
    "ServerSettings",
    "export_state",
    "merge_kubeconfig",
    "restore_backup",
]
