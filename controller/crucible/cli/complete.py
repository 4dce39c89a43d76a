"""Shell completion of plugins' names. Never an error, never a long wait: a shell is waiting."""

from pathlib import Path
from typing import Any, Final

import typer

_SECONDS: Final = 1.0


def complete_plugins(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of plugins that begin with what was typed; none when nothing answers in a second."""
    from crucible.cli.api import Api  # noqa: PLC0415 - only a completion pays for it
    from crucible.cli.endpoint import Access, endpoint_of  # noqa: PLC0415
    from crucible.cli.objects import collection  # noqa: PLC0415
    from crucible.errors import CrucibleError  # noqa: PLC0415

    given: dict[str, Any] = ctx.params
    access = Access(
        kubeconfig=_path(given.get("kubeconfig")),
        context=given.get("context"),
        namespace=given.get("namespace"),
        state=_path(given.get("state")),
    )
    try:
        with Api(endpoint_of(access), connect=_SECONDS, read=_SECONDS) as api:
            found = api.get(collection(access.namespace or api.namespace))
    except CrucibleError:
        return []
    names = (item["metadata"]["name"] for item in found.get("items", []))
    return sorted(name for name in names if name.startswith(incomplete))


def _path(given: object) -> Path | None:
    return None if given is None else Path(str(given))
