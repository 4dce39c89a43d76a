"""From a manifest to the workload that a runtime is asked to run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from crucible.core.doors import doors_of
from crucible.model.secret import SecretVariable
from crucible.model.volume import Mount
from crucible.model.workload import Limits, Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crucible.model.manifest import PluginSpec
    from crucible.model.plugin import Identity
    from crucible.model.secret import SecretSeen
    from crucible.model.status import SourceReport


def render(
    identity: Identity, spec: PluginSpec, source: SourceReport, secrets: Sequence[SecretSeen] = ()
) -> Workload:
    """Return the workload; it differs exactly when instances have to be replaced.

    Args:
        identity: of the Plugin.
        spec: an admitted one.
        source: what its source was resolved to.
        secrets: what is known of the Secrets that it names.
    """
    resources = spec.resources
    versions = {seen.name: seen.version for seen in secrets}
    return Workload(
        namespace=identity.namespace,
        plugin=identity.name,
        plugin_uid=identity.uid,
        type=spec.type.value,
        entrypoint=spec.entrypoint,
        env=tuple((variable.name, variable.value) for variable in spec.env if variable.value is not None),
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
        secrets=tuple((name, versions.get(name, "")) for name in sorted(set(spec.capabilities.secrets))),
        mounts=tuple(
            Mount(each.volume, each.mount, each.access == "write") for each in spec.capabilities.files
        ),
        secret_env=tuple(
            SecretVariable(variable.name, variable.secret.name, variable.secret.key)
            for variable in spec.env
            if variable.secret is not None
        ),
        doors=doors_of(spec),
        sealed=spec.capabilities.bus.encrypt_local,
        delivery=spec.config_delivery.value,
    )
