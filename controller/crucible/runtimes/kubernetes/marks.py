"""How the objects of a plugin are named and marked, and how they are known again. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from crucible.model import names
from crucible.model.door import Door
from crucible.model.workload import Slot, Workload

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "crucible"
PLUGIN: Final = f"{names.GROUP}/plugin"
PLUGIN_UID: Final = f"{names.GROUP}/plugin-uid"
ORDINAL: Final = f"{names.GROUP}/ordinal"
REVISION: Final = f"{names.GROUP}/revision"
SOURCE: Final = f"{names.GROUP}/source"
"""Annotation: the digest of what the pod runs."""
FILES: Final = f"{names.GROUP}/files"
"""Annotation: the ConfigMap that the pod mounts."""
CONFIG: Final = f"{names.GROUP}/config"
"""Annotation: digest of the configuration that the pod was given last, where it can be given another."""
DOOR_LABELS: Final = {door: f"{names.GROUP}/{door}" for door in Door}
"""Labels: the pod may reach what is behind that door, which it calls by the door's name. Rules select by
them; the pod's own words decide who bears them."""
OPERATOR: Final = f"{names.GROUP}/operator"
"""Label: the pod is the operator's. By it rules let the pod to the broker; who is the operator its service
account says besides."""
REACHED: Final = f"{names.GROUP}/reached"
"""Label: new connections come to the pod, ``yes`` or ``no``. Where any pod of a plugin bears it, its Service
selects those with ``yes`` alone. It grants nothing."""
AUTHORITY: Final = "crucible-bus-ca"
"""The ConfigMap, in each namespace of plugins, with the certificate of who vouches for the broker."""
AUTHORITY_KEY: Final = "ca.crt"
SELECTOR: Final = f"{MANAGED_BY}={MANAGER}"
OURS: Final = (f"{names.GROUP}/", "app.kubernetes.io/")
"""How the labels and annotations begin that are nobody else's to change."""
_NAME: Final = re.compile(r"(?P<plugin>.+)-(?P<ordinal>[0-9]{1,9})-(?P<attempt>[0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Owner:
    """The Plugin that an object belongs to."""

    namespace: str
    plugin: str
    uid: str

    @property
    def reference(self) -> dict[str, Any]:
        """What makes the cluster delete the object with its Plugin."""
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "name": self.plugin,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


def owner_of_workload(workload: Workload) -> Owner:
    """Return the Plugin that a workload belongs to."""
    return Owner(workload.namespace, workload.plugin, workload.plugin_uid)


def owner_of(found: Mapping[str, Any]) -> Owner | None:
    """Return the Plugin that controls an object, or None where none does."""
    meta = found["metadata"]
    for reference in meta.get("ownerReferences") or ():
        if (
            reference.get("controller")
            and reference.get("kind") == names.KIND
            and reference.get("apiVersion", "").startswith(f"{names.GROUP}/")
        ):
            return Owner(meta.get("namespace", ""), reference["name"], reference["uid"])
    return None


def slot_of(pod: Mapping[str, Any]) -> Slot | None:
    """Return which instance a pod is, or None where it is none of ours.

    Labels do not count, for anyone may change them: whose it is and what it is called have to agree.
    """
    owner = owner_of(pod)
    parts = _NAME.fullmatch(pod["metadata"]["name"])
    if owner is None or parts is None or parts["plugin"] != owner.plugin:
        return None
    return Slot(int(parts["ordinal"]), int(parts["attempt"]))


def pod_labels(owner: Owner, ordinal: int, revision: str, doors: Collection[Door]) -> dict[str, str]:
    """Return the labels that select a pod."""
    ways = {DOOR_LABELS[door]: "true" for door in sorted(doors)}
    return {**common_labels(owner), ORDINAL: str(ordinal), REVISION: revision, **ways}


def doors_of(pod: Mapping[str, Any]) -> frozenset[Door]:
    """Return the doors that a pod was made to reach; its specification says so, and stays."""
    aliases = pod.get("spec", {}).get("hostAliases") or ()
    named = {name for alias in aliases for name in alias.get("hostnames") or ()}
    return frozenset(door for door in Door if door in named)


def is_routed(pods: Iterable[Mapping[str, Any]]) -> bool:
    """Whether it is said of any of these pods if new connections come to it."""
    return any(REACHED in (pod["metadata"].get("labels") or {}) for pod in pods)


def common_labels(owner: Owner) -> dict[str, str]:
    """Return the labels that every object of a Plugin bears."""
    return {
        MANAGED_BY: MANAGER,
        "app.kubernetes.io/name": owner.plugin,
        "app.kubernetes.io/component": "plugin",
        PLUGIN: owner.plugin,
        PLUGIN_UID: owner.uid,
    }


def select(owner: Owner) -> dict[str, str]:
    """Return the labels that select exactly the pods of a Plugin."""
    return {MANAGED_BY: MANAGER, PLUGIN_UID: owner.uid}


def pod_name(owner: Owner, slot: Slot) -> str:
    """Return ``plugin-ordinal-attempt``: the same each time, so that two starts cannot both win."""
    return f"{owner.plugin}-{slot}"


def service_name(owner: Owner) -> str:
    """Return the name others reach a plugin by; a Service's has to begin with a letter."""
    return owner.plugin if owner.plugin[:1].isalpha() else f"p-{owner.plugin}"


def files_name(owner: Owner, content: str) -> str:
    """Return the name of a ConfigMap, which says what is in it."""
    return f"crucible-{owner.plugin}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def config_name(pod: str) -> str:
    """Return the name of the ConfigMap with one pod's own configuration, which can change while it runs."""
    return f"crucible-{pod}-config"


def rules_name(owner: Owner) -> str:
    """Return the name of a Plugin's NetworkPolicy and PodDisruptionBudget."""
    return f"crucible-{owner.plugin}"


def user_of(plugin_uid: str, *, user_namespaces: bool) -> int:
    """Return the user and group id of a plugin's processes.

    With user namespaces every pod has 65,536 ids to itself, and only those; without, a plugin's id is its own
    among two thousand million, so that no two plugins of a node are likely to share one.
    """
    number = int(hashlib.sha256(plugin_uid.encode()).hexdigest()[:15], 16)
    return 10_000 + number % 50_000 if user_namespaces else 1_000_000 + number % 2_000_000_000
