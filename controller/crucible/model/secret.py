"""What the controller knows of Secrets: names, keys, whether they changed; never what is in them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SecretSeen:
    """One Secret that a manifest names, as the control plane has it.

    Attributes:
        name: of the Secret, in the Plugin's namespace.
        there: it exists; also where nobody here may look, because the kubelet mounts it.
        keys: in its data; None where nobody here may look.
        version: changes exactly when its content does, and tells nothing of it; empty where nobody may look.
    """

    name: str
    there: bool
    keys: frozenset[str] | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class SecretVariable:
    """An environment variable whose value is in a Secret."""

    name: str
    secret: str
    key: str
