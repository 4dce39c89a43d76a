"""Which API server to talk to, and as whom: read from a kubeconfig, without a client library."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from crucible.errors import InvalidInput, NotFound, Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One API server and one identity.

    Attributes:
        server: base URL.
        ca: PEM of the authority that signed the server's certificate; empty: the system's.
        token: bearer token; empty: none.
        certificate: PEM of the client certificate; empty: none.
        key: PEM of its key.
        namespace: used where a command names none.
    """

    server: str
    ca: str = ""
    token: str = ""
    certificate: str = ""
    key: str = ""
    namespace: str = "default"


def load_endpoint(path: Path, context: str | None = None) -> Endpoint:
    """Read one context of a kubeconfig file.

    Raises:
        NotFound: there is no such file or context.
        InvalidInput: it is no kubeconfig.
        Unsupported: it signs in by a helper program.
    """
    try:
        config = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise NotFound(
            f"there is no kubeconfig at {path}: is the control plane up? Start it with 'crucible up'"
        ) from None
    except PermissionError:
        raise NotFound(
            f"the kubeconfig {path} belongs to someone else: use your own, or run as its owner"
        ) from None
    except yaml.YAMLError as error:
        raise InvalidInput(f"{path} is no YAML: {error}") from None
    try:
        return _endpoint(config, context, path.parent)
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"{path} is no complete kubeconfig: {error} is missing") from None


def _endpoint(config: Mapping[str, Any], context: str | None, folder: Path) -> Endpoint:
    wanted = context or config["current-context"]
    chosen = _named(config, "context", wanted)
    cluster = _named(config, "cluster", chosen["cluster"])
    user = _named(config, "user", chosen["user"])
    if "exec" in user or "auth-provider" in user:
        raise Unsupported(
            f"user {chosen['user']} signs in by a helper program: give it a token or a certificate"
        )
    token = user.get("token", "")
    if not token and "tokenFile" in user:
        token = (folder / user["tokenFile"]).read_text().strip()
    return Endpoint(
        server=cluster["server"].rstrip("/"),
        ca=_pem(cluster, "certificate-authority", folder),
        token=token,
        certificate=_pem(user, "client-certificate", folder),
        key=_pem(user, "client-key", folder),
        namespace=chosen.get("namespace", "default"),
    )


def _named(config: Mapping[str, Any], kind: str, name: str) -> Mapping[str, Any]:
    for entry in config[f"{kind}s"]:
        if entry["name"] == name:
            found: Mapping[str, Any] = entry[kind]
            return found
    raise NotFound(f"the kubeconfig has no {kind} {name}")


def _pem(entry: Mapping[str, Any], name: str, folder: Path) -> str:
    data = entry.get(f"{name}-data")
    if data:
        return base64.b64decode(data).decode()
    return (folder / entry[name]).read_text() if entry.get(name) else ""


def default_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Return ``$KUBECONFIG`` (its first file), or ``~/.kube/config``."""
    named = environment.get("KUBECONFIG", "").split(os.pathsep)[0]
    return Path(named) if named else Path(environment.get("HOME", "~")).expanduser() / ".kube" / "config"


def merge_kubeconfig(existing: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``existing`` with our cluster, user and context set; everything else in it stays.

    The current context changes only where there was none.
    """
    merged: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", **existing}
    for section in ("clusters", "users", "contexts"):
        added = ours.get(section) or []
        names = {item["name"] for item in added}
        kept = [item for item in existing.get(section) or [] if item.get("name") not in names]
        merged[section] = [*kept, *added]
    merged["current-context"] = existing.get("current-context") or ours.get("current-context", "")
    return merged
