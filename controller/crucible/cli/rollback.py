"""``crucible rollback``."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from crucible.cli.api import Api
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.exits import Failed
from crucible.cli.objects import holds, plugin_path
from crucible.cli.options import Name, Timeout, with_access
from crucible.cli.waiting import LASTING, expect_no_frost, seconds_of, unready, wait_until
from crucible.manifests.resources import PLUGIN
from crucible.model import names
from crucible.model.asked import UNKNOWN, looked_at, manifest_digest

EXAMPLES: Final = """\b
Examples:
  crucible rollback word-count
  crucible rollback word-count --to 3 --wait

The manifest stays as it is: applying another one, or crucible restart, ends it.
"""


@with_access
def command(
    access: Access,
    plugin: Name,
    to: Annotated[
        int | None,
        typer.Option("--to", min=1, metavar="N", help="Number of the revision; default: the last good."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return only when it is ready.")] = False,
    timeout: Timeout = "60s",
) -> None:
    """Run an earlier revision of a plugin in the place of what its manifest asks for."""
    limit = seconds_of(timeout)
    with Api(endpoint_of(access)) as api:
        path = plugin_path(access.namespace or api.namespace, plugin)
        found = api.get(path)
        history = (found.get("status") or {}).get("history") or []
        seen = is_seen(found)
        target = _target(plugin, history[:-1] if seen else history, to, history[-1:] if seen else ())
        failed = history[-1]["revision"] if seen else UNKNOWN
        asked = f"{failed} {target['revision']} {manifest_digest(found)}"
        api.patch(path, {"metadata": {"annotations": {names.ROLLBACK: asked}}})
        when = "" if seen else ", once the controller has looked at the manifest"
        print(f"{PLUGIN.label}/{plugin} rolled back to revision {target['number']}{when}", flush=True)
        if wait:
            wait_until(
                lambda: _runs(api.get(path), str(target["revision"]), asked),
                limit,
                lambda: unready(api.get(path)),
                lasting=LASTING,
            )
            print(f"{PLUGIN.label}/{plugin} ready", flush=True)


def is_seen(plugin: Mapping[str, Any]) -> bool:
    """Whether the last revision there was is what the manifest asks for now; earlier releases do not say."""
    told = (plugin.get("status") or {}).get("lookedAt")
    return not told or told == looked_at(plugin["metadata"])


def _target(
    plugin: str,
    earlier: Sequence[Mapping[str, Any]],
    number: int | None,
    wanted: Sequence[Mapping[str, Any]],
) -> Mapping[str, Any]:
    """Return the revision to go back to.

    Raises:
        Failed: there is none, or it is what the manifest asks for anyway.
    """
    if number is None:
        good = [each for each in earlier if each.get("good")]
        if not good:
            raise Failed(f"{plugin} has no earlier revision that was good: see 'crucible history {plugin}'")
        return good[-1]
    if any(each.get("number") == number for each in wanted):
        raise Failed(
            f"revision {number} is what the manifest of {plugin} asks for: "
            f"'crucible restart {plugin}' runs it again"
        )
    found = next((each for each in earlier if each.get("number") == number), None)
    if found is None:
        raise Failed(f"{plugin} has no revision {number}: see 'crucible history {plugin}'")
    return found


def _runs(plugin: Mapping[str, Any], revision: str, asked: str) -> bool:
    expect_no_frost(plugin)
    status = plugin.get("status") or {}
    if status.get("answered") == asked and not status.get("rollback"):
        raise Failed("it was not rolled back: see 'crucible describe', event RollbackRefused")
    if (plugin.get("spec") or {}).get("suspend"):
        return status.get("phase") == "Suspended"  # it runs once it is resumed
    back = status.get("rollback") or {}
    settled = holds(plugin, "Ready") and not holds(plugin, "Reconciling")
    return back.get("revision") == revision and settled
