"""``crucible restart``."""

import time
from typing import Annotated, Any, Final

import typer

from crucible.cli.api import Api
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.exits import Failed, WrongUsage
from crucible.cli.objects import condition, plugin_path
from crucible.cli.options import Names, Timeout, with_access
from crucible.cli.waiting import LASTING, is_ready, seconds_of, unready, wait_until
from crucible.manifests.resources import PLUGIN
from crucible.model import names

EXAMPLES: Final = """\b
Examples:
  crucible restart word-count
  crucible restart word-count tokenizer --wait --timeout 2m

A restart also ends quarantine, and reads a source folder anew.
"""


@with_access
def command(
    access: Access,
    plugins: Names = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return only when all are ready.")] = False,
    timeout: Timeout = "60s",
) -> None:
    """Replace every instance of plugins."""
    if not plugins:
        raise WrongUsage("name the plugins to restart: crucible restart NAME")
    limit = seconds_of(timeout)
    with Api(endpoint_of(access)) as api:
        namespace = access.namespace or api.namespace
        paths = {name: plugin_path(namespace, name) for name in plugins}
        before = {name: api.get(path) for name, path in paths.items()}
        for name, plugin in before.items():
            _check(name, plugin)
        for name, path in paths.items():
            api.patch(path, {"metadata": {"annotations": {names.RESTARTED_AT: _now()}}})
            print(f"{PLUGIN.label}/{name} restarted", flush=True)
        for name, path in paths.items() if wait else ():
            _wait(api, path, str((before[name].get("status") or {}).get("revision", "")), limit)
            print(f"{PLUGIN.label}/{name} ready", flush=True)


def _check(name: str, plugin: dict[str, Any]) -> None:
    if (plugin.get("status") or {}).get("phase") == "Refused":
        why = condition(plugin, "Ready").get("message")
        raise Failed(f"{name} is refused, which a restart does not change: {why}")
    if (plugin.get("spec") or {}).get("suspend"):
        raise Failed(f"{name} is suspended: set spec.suspend to false instead")


def _wait(api: Api, path: str, stale: str, limit: float) -> None:
    wait_until(
        lambda: is_ready(api.get(path), stale=stale),
        limit,
        lambda: unready(api.get(path)),
        lasting=LASTING,
    )


def _now() -> str:
    """Return the time as RFC 3339 with microseconds, so that two restarts in one second are two."""
    seconds, rest = divmod(time.time_ns(), 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 1000:06d}Z"
