"""From a manifest to the workload that a runtime is asked to run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from crucible.model.workload import Limits, Workload

if TYPE_CHECKING:
    from crucible.model.manifest import PluginSpec
    from crucible.model.plugin import Identity
    from crucible.model.status import SourceReport


def render(identity: Identity, spec: PluginSpec, source: SourceReport) -> Workload:
    """Return the workload; it differs exactly when instances have to be replaced.

    Args:
        identity: of the Plugin.
        spec: an admitted one.
        source: what its source was resolved to.
    """
    resources = spec.resources
    return Workload(
        namespace=identity.namespace,
        plugin=identity.name,
        plugin_uid=identity.uid,
        type=spec.type.value,
        entrypoint=spec.entrypoint,
        env=tuple((variable.name, variable.value or "") for variable in spec.env),
        config=json.dumps(spec.config, sort_keys=True),
        source=source.digest,
        limits=Limits(
            cpu=resources.cpu,
            memory=resources.memory,
            pids=resources.pids,
            disk=resources.disk,
            open_files=resources.open_files,
        ),
        isolation=spec.sandbox.isolation.value,
        grace=spec.stop_grace,
        restart=identity.restart,
        image=source.image,
        listen=spec.capabilities.network.listen,
        fuel=resources.fuel,
        time=resources.time,
    )
