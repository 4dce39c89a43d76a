"""What a container says of itself: whose it is, and which instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from crucible.model.door import Door
from crucible.model.workload import Slot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.model.workload import Workload

PREFIX: Final = "dev.crucible."
CONTROL_PLANE: Final = PREFIX + "control-plane"
PLUGIN_UID: Final = PREFIX + "plugin-uid"
NAMESPACE: Final = PREFIX + "namespace"
PLUGIN: Final = PREFIX + "plugin"
SLOT: Final = PREFIX + "slot"
REVISION: Final = PREFIX + "revision"
SOURCE: Final = PREFIX + "source"
UID: Final = PREFIX + "uid"
CREATED: Final = PREFIX + "created"
ROLE: Final = PREFIX + "role"
DOORS: Final = PREFIX + "doors"

ENTRYPOINT: Final = PREFIX + "entrypoint"
"""On a type's image: the words before the program, as a JSON list."""
ENVIRONMENT: Final = PREFIX + "env"
"""On a type's image: variables its interpreter needs, as a JSON object."""


def labels_of(
    control_plane: str, workload: Workload, slot: Slot, uid: int, created_at: float
) -> dict[str, str]:
    """Return the labels of one instance's container: all there are, for they win over those of its image."""
    return {
        CONTROL_PLANE: control_plane,
        PLUGIN_UID: workload.plugin_uid,
        NAMESPACE: workload.namespace,
        PLUGIN: workload.plugin,
        SLOT: str(slot),
        REVISION: workload.revision,
        SOURCE: workload.source,
        UID: str(uid),
        CREATED: repr(created_at),
        ROLE: "instance",
        DOORS: ",".join(workload.doors),
    }


def doors_of(labels: Mapping[str, str]) -> tuple[Door, ...]:
    """Return the doors that an instance's container was made with."""
    return tuple(Door(word) for word in labels.get(DOORS, "").split(",") if word in set(Door))


def name_of(control_plane: str, plugin_uid: str, slot: Slot) -> str:
    """Return the name of an instance's container: the same each time, so that two starts cannot both win."""
    return f"crucible-{control_plane}-{plugin_uid}-{slot}"


def slot_of(labels: Mapping[str, str], name: str, control_plane: str) -> Slot | None:
    """Return which instance a container is, or None where it is not one of this control plane's.

    Labels alone prove nothing: a container takes over those of its image, and anyone can write an image.
    Name and labels have to agree.
    """
    ordinal, _, attempt = labels.get(SLOT, "").partition("-")
    if labels.get(CONTROL_PLANE) != control_plane or not (ordinal.isdecimal() and attempt.isdecimal()):
        return None
    slot = Slot(int(ordinal), int(attempt))
    ours = name_of(control_plane, labels.get(PLUGIN_UID, ""), slot)
    return slot if name.removeprefix("/") == ours else None
