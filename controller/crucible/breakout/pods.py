"""The pods of an examination of a cluster: what the operator would make, under names of its own. Pure.

An operator never touches them, and no admission policy takes them for a plugin's: they bear none of its
labels, and belong to one ConfigMap, with which all of them go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from crucible.breakout.trial import FIRST, workload
from crucible.breakout.trial import LIMITS as USUAL
from crucible.runtimes.kubernetes import marks
from crucible.runtimes.kubernetes.compile import pod
from crucible.runtimes.kubernetes.surroundings import network_policy
from crucible.runtimes.kubernetes.volumes import config_map

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.model.workload import Workload
    from crucible.runtimes.kubernetes.settings import KubernetesSettings

MANAGER: Final = "crucible-doctor"
RUN: Final = "app.kubernetes.io/instance"
PART: Final = "app.kubernetes.io/component"
FREE, HELD = "free", "held"
"""Whether the policy of a plugin that was granted nothing holds a pod."""
LIMITS: Final = replace(USUAL, cpu=100)
"""Of each pod: it is reserved for it, and all of them have to fit on a small node beside what runs there."""
_PROGRAMS: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Run:
    """One examination.

    Attributes:
        namespace: where its pods are.
        name: of the ConfigMap that owns them all.
        uid: of that.
    """

    namespace: str
    name: str
    uid: str = ""

    @property
    def owner(self) -> dict[str, Any]:
        """What makes the cluster delete the rest with that ConfigMap."""
        return {"apiVersion": "v1", "kind": "ConfigMap", "name": self.name, "uid": self.uid}

    def labels(self, part: str) -> dict[str, str]:
        """Return the labels of what belongs to it."""
        return {marks.MANAGED_BY: MANAGER, RUN: self.name, PART: part}


def root(run: Run) -> dict[str, Any]:
    """Return the ConfigMap that owns all else."""
    meta = {"name": run.name, "namespace": run.namespace, "labels": run.labels("run")}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {}}


def policy(run: Run) -> dict[str, Any]:
    """Return the NetworkPolicy of a plugin that was granted nothing, for the pods that are held."""
    made = network_policy(_as_owner(run), (), ())
    made["metadata"] = _meta(run, "held", HELD)
    made["spec"]["podSelector"] = {"matchLabels": run.labels(HELD)}
    return made


def made(
    run: Run, name: str, part: str, asked: Workload, settings: KubernetesSettings
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the ConfigMap and the pod of one program, as the operator would make them."""
    asked = _placed(run, asked)
    files = programs(asked)
    config = config_map(asked, files)
    config["metadata"] = _meta(run, name, part)
    found = pod(asked, FIRST, settings, config["metadata"]["name"], files)
    found["metadata"] = _meta(run, name, part)
    for each in found["spec"]["topologySpreadConstraints"]:
        each["labelSelector"] = {"matchLabels": run.labels(part)}
    return config, found


def programs(asked: Workload) -> Mapping[str, str]:
    """Return the files that a program of the suite needs: all of the many attempts, or itself alone."""
    folder = _PROGRAMS / ("inside" if asked.entrypoint[0] == "main.py" else "alone")
    found = {path.name: path.read_text() for path in folder.glob("*.py")}
    return found if folder.name == "inside" else {asked.entrypoint[0]: found[asked.entrypoint[0]]}


def plugin(program: str, config: str = "{}", **changes: Any) -> Workload:  # noqa: ANN401 - fields
    """Return one of the suite's programs as a plugin of a cluster."""
    return workload(program, config, **{"isolation": "container", "limits": LIMITS, **changes})


def _placed(run: Run, asked: Workload) -> Workload:
    return replace(asked, namespace=run.namespace)


def _as_owner(run: Run) -> marks.Owner:
    return marks.Owner(run.namespace, run.name, run.uid)


def _meta(run: Run, name: str, part: str) -> dict[str, Any]:
    return {
        "name": f"{run.name}-{name}",
        "namespace": run.namespace,
        "labels": run.labels(part),
        "ownerReferences": [run.owner],
    }
