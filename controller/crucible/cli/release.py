"""``crucible release``."""

from typing import Annotated, Final

import typer

from crucible.cli.api import Api
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.exits import Failed, WrongUsage
from crucible.cli.objects import plugin_path
from crucible.cli.options import Names, with_access
from crucible.manifests.resources import PLUGIN
from crucible.model import names

EXAMPLES: Final = """\b
Examples:
  crucible release word-count
  crucible release word-count tokenizer --yes

For plugins that were deleted and do not go away because their operator is gone for good. With an
operator running this is never needed: it clears away what it made, then lets the plugin go.
"""


@with_access
def command(
    access: Access,
    plugins: Names = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Let plugins disappear without their operator: remove its finalizer."""
    if not plugins:
        raise WrongUsage("name the plugins to release: crucible release NAME")
    with Api(endpoint_of(access)) as api:
        namespace = access.namespace or api.namespace
        for name in plugins:
            path = plugin_path(namespace, name)
            meta = api.get(path)["metadata"]
            held = names.FINALIZER in (meta.get("finalizers") or ())
            if held and "deletionTimestamp" not in meta:
                raise Failed(f"{name} is not being deleted: run 'crucible delete {name} --no-wait' first")
            if held and not yes and not _agreed(name):
                raise Failed(f"{name} is left as it is")
            if held:
                _release(api, path)
            print(f"{PLUGIN.label}/{name} {'released' if held else 'is not held'}", flush=True)


def _agreed(name: str) -> bool:
    question = (
        f"{name}: what its operator made may be left behind and go on running. "
        "Is that operator gone for good?"
    )
    return typer.confirm(question, default=False, err=True)


def _release(api: Api, path: str) -> None:
    """Remove our finalizer and no other; a list that changed meanwhile is read again by the server's 409."""
    meta = api.get(path)["metadata"]
    kept = [each for each in meta["finalizers"] if each != names.FINALIZER]
    api.patch(path, {"metadata": {"resourceVersion": meta["resourceVersion"], "finalizers": kept}})
