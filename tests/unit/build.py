"""Makes the values that unit tests reason about."""

from __future__ import annotations

from typing import Any

from crucible.core.admission import admit
from crucible.model.enforcement import Capabilities, Control, Enforcement, Level
from crucible.model.instance import Exit, Instance, State
from crucible.model.names import FINALIZER
from crucible.model.plugin import Identity
from crucible.model.status import PluginStatus, SourceReport
from crucible.model.workload import Slot
from crucible.model.world import World

DIGEST = "sha256:" + "0" * 64
UID = "11111111-2222-3333-4444-555555555555"


def plugin(**spec: Any) -> dict[str, Any]:
    """Return a small valid Plugin object with some spec fields replaced."""
    return {
        "apiVersion": "crucible.dev/v1alpha1",
        "kind": "Plugin",
        "metadata": {
            "name": "echo",
            "namespace": "default",
            "uid": UID,
            "generation": 1,
            "resourceVersion": "7",
        },
        "spec": {
            "version": "1.0.0",
            "type": "python",
            "source": {"inline": {"main.py": "print('hello')"}},
            "entrypoint": ["main.py"],
            **spec,
        },
    }


def capabilities(**levels: Level) -> Capabilities:
    """Return capabilities in which every control is enforced but those named."""
    return Capabilities(
        runtime="process",
        types=frozenset({"python", "javascript", "binary"}),
        sources=frozenset({"inline", "path"}),
        isolation=frozenset({"process"}),
        volumes=frozenset({"notes for reading"}),
        controls=tuple(
            Enforcement(control, levels.get(control.name, Level.ENFORCED), f"how {control.value} holds")
            for control in Control
        ),
    )


def identity(**changes: Any) -> Identity:
    """Return who the Plugin of these tests is; its object is held."""
    return Identity(
        **{
            "namespace": "default",
            "name": "echo",
            "uid": UID,
            "generation": 1,
            "finalizers": (FINALIZER,),
            **changes,
        }
    )


def world(*instances: Instance, now: float = 1000.0, **changes: Any) -> World:
    """Return the world of a valid Plugin; ``spec`` may be given as manifest fields."""
    spec = changes.pop("spec", {})
    return World(
        **{
            "now": now,
            "identity": identity(),
            "spec": admit(plugin(**spec)) if isinstance(spec, dict) else spec,
            "source": SourceReport(digest=DIGEST, resolved_for="inline"),
            "capabilities": capabilities(),
            "instances": instances,
            "status": PluginStatus(),
            **changes,
        }
    )


def instance(attempt: int = 1, *, ordinal: int = 0, revision: str = "", **changes: Any) -> Instance:
    """Return a running instance."""
    slot = Slot(ordinal, attempt)
    return Instance(
        **{
            "plugin_uid": UID,
            "name": f"echo-{slot}",
            "slot": slot,
            "revision": revision,
            "state": State.RUNNING,
            "created_at": 900.0,
            **changes,
        }
    )


def ended(attempt: int = 1, *, at: float = 999.0, revision: str = "", **changes: Any) -> Instance:
    """Return an instance that ended by itself with status 1, unless told otherwise."""
    how = changes.pop("exit", Exit(at=at, code=1))
    return instance(attempt, revision=revision, state=State.EXITED, exit=how, **changes)
