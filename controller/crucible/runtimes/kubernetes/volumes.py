"""The files that a pod sees: its configuration and its program in a ConfigMap, and scratch space. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from crucible.core.scratch import scratch_sizes
from crucible.core.secrets import FOLDER
from crucible.errors import InvalidInput
from crucible.model.door import DOORS, Door
from crucible.runtimes.kubernetes import marks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.model.volume import ClaimVolume, Mount
    from crucible.model.workload import Workload
    from crucible.runtimes.kubernetes.settings import KubernetesSettings

SOURCE: Final = "/plugin"
CONFIG: Final = "/config/config.json"
AUTHORITY: Final = f"{DOORS}/{marks.AUTHORITY_KEY}"
"""The certificate of who vouches for the broker; what is there changes when that does."""
TMP: Final = "/tmp"  # noqa: S108 - inside the container
SHM: Final = "/dev/shm"  # noqa: S108 - inside the container
LOG_ROOM: Final = 64 * 1024 * 1024
"""Bytes of output that the kubelet keeps and counts as the pod's: its log files, rotated."""
_CONFIG_KEY: Final = "config.json"
_EXECUTABLE: Final = 0o555
_READABLE: Final = 0o444


def config_map(workload: Workload, files: Mapping[str, str]) -> dict[str, Any]:
    """Return the ConfigMap with a plugin's inline files, and its configuration where that cannot change.

    It never changes once made: its name says what is in it. Paths are no names that a ConfigMap can have, so
    its keys are numbers, in the order of the paths.
    """
    owner = marks.owner_of_workload(workload)
    data = {} if workload.live_config else {_CONFIG_KEY: workload.config}
    data |= {key: files[path] for key, path in _keys(files).items()}
    name = marks.files_name(owner, json.dumps([sorted(files), data], sort_keys=True))
    return {**_config_map(owner, name, data), "immutable": True}


def live_config_map(owner: marks.Owner, pod: str, config: str) -> dict[str, Any]:
    """Return the ConfigMap with one pod's configuration, which another is put into while it runs."""
    return _config_map(owner, marks.config_name(pod), {_CONFIG_KEY: config})


def _config_map(owner: marks.Owner, name: str, data: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": marks.common_labels(owner),
            "ownerReferences": [owner.reference],
        },
        "data": dict(data),
    }


def volumes(
    workload: Workload, settings: KubernetesSettings, config: str, paths: Mapping[str, Any], pod: str
) -> list[dict[str, Any]]:
    """Return a pod's volumes.

    Args:
        workload: what it runs.
        settings: of the cluster.
        config: name of its ConfigMap.
        paths: the plugin's files; empty for a whole image.
        pod: its name.
    """
    place = marks.config_name(pod) if workload.live_config else config
    scratch, shared = scratch_sizes(workload.limits)
    items = [{"key": _CONFIG_KEY, "path": "config.json", "mode": _READABLE}]
    found = [
        {"name": "config", "configMap": {"name": place, "items": items, "defaultMode": _READABLE}},
        {"name": "tmp", "emptyDir": {"sizeLimit": str(scratch)}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(shared)}},
    ]
    if paths:
        items = [{"key": key, "path": path, "mode": _EXECUTABLE} for key, path in _keys(paths).items()]
        source = {"name": config, "items": items, "defaultMode": _EXECUTABLE}
        found.insert(0, {"name": "source", "configMap": source})
    if Door.BUS in settings.ways_of(workload):
        item = {"key": marks.AUTHORITY_KEY, "path": marks.AUTHORITY_KEY, "mode": _READABLE}
        shown = {"name": marks.AUTHORITY, "items": [item], "defaultMode": _READABLE}
        found.append({"name": "bus", "configMap": shown})
    # Readable for all: a pod has one user, and without a group of its own the kubelet gives files to root.
    secrets = ({"secretName": name, "defaultMode": _READABLE} for name, _ in workload.secrets)
    return [
        *found,
        *({"name": f"secret-{index}", "secret": secret} for index, secret in enumerate(secrets)),
        *(
            {
                "name": f"volume-{index}",
                "persistentVolumeClaim": {"claimName": claim.claim, "readOnly": not mount.writable},
            }
            for index, (mount, claim) in enumerate(claims_of(workload, settings))
        ),
    ]


def claims_of(workload: Workload, settings: KubernetesSettings) -> list[tuple[Mount, ClaimVolume]]:
    """Return the volumes of a workload, each with the claim that it is.

    Raises:
        InvalidInput: one is not offered, or not for writing.
    """
    known = {volume.name: volume for volume in settings.volumes}
    found = []
    for mount in workload.mounts:
        claim = known.get(mount.volume)
        if claim is None or (mount.writable and not claim.writable):
            raise InvalidInput(f"volume {mount.volume} is not offered any more, or not for writing")
        found.append((mount, claim))
    return found


def mounts(workload: Workload, settings: KubernetesSettings, *, source: bool) -> list[dict[str, Any]]:
    """Return where a container sees its volumes."""
    found: list[dict[str, Any]] = [
        {"name": "config", "mountPath": CONFIG.rpartition("/")[0], "readOnly": True},
        {"name": "tmp", "mountPath": TMP},
        {"name": "shm", "mountPath": SHM},
        *(
            [{"name": "bus", "mountPath": DOORS, "readOnly": True}]
            if Door.BUS in settings.ways_of(workload)
            else []
        ),
        *(
            {"name": f"secret-{index}", "mountPath": f"{FOLDER}/{name}", "readOnly": True}
            for index, (name, _) in enumerate(workload.secrets)
        ),
        *(
            {"name": f"volume-{index}", "mountPath": mount.place, "readOnly": not mount.writable}
            for index, mount in enumerate(workload.mounts)
        ),
    ]
    return [{"name": "source", "mountPath": SOURCE, "readOnly": True}, *found] if source else found


def _keys(paths: Mapping[str, Any]) -> dict[str, str]:
    return {f"f{number}": path for number, path in enumerate(sorted(paths))}
