"""``crucible delete``."""

from typing import Annotated, Final

import typer

from crucible.cli.api import Api
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.exits import WrongUsage
from crucible.cli.manifests import read_wanted
from crucible.cli.objects import collection, condition, plugin_path
from crucible.cli.options import Files, Names, Timeout, Wait, with_access
from crucible.cli.waiting import seconds_of, wait_until
from crucible.errors import CrucibleError, NotFound
from crucible.manifests.resources import PLUGIN

EXAMPLES: Final = """\b
Examples:
  crucible delete word-count
  crucible delete -f plugin.yaml
  crucible delete --all --timeout 2m
"""


@with_access
def command(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    access: Access,
    plugins: Names = None,
    files: Files = None,
    everything: Annotated[bool, typer.Option("--all", help="Every plugin of the namespace.")] = False,
    ignore: Annotated[
        bool, typer.Option("--ignore-not-found", help="What is not there is no error.")
    ] = False,
    wait: Wait = True,
    timeout: Timeout = "60s",
) -> None:
    """Stop plugins and remove all that was made for them; return when they are gone."""
    if sum((bool(plugins), bool(files), everything)) != 1:
        raise WrongUsage("say what to delete: names of plugins, -f FILE, or --all")
    limit = seconds_of(timeout)
    with Api(endpoint_of(access)) as api:
        namespace = access.namespace or api.namespace
        if files:
            found = read_wanted(files, access.namespace, api.namespace, strict=False)
            targets = [(wanted.label, wanted.path) for wanted in reversed(found)]
        else:
            names = _all(api, namespace) if everything else list(plugins or ())
            targets = [(f"{PLUGIN.label}/{name}", plugin_path(namespace, name)) for name in names]
        asked = [(label, path, _ask(api, path)) for label, path in targets]
        missing = [label for label, _, uid in asked if uid is None]
        for label, path, uid in asked:
            if uid is not None and wait:
                _wait(api, path, uid, limit)
            if uid is not None:
                print(f"{label} {'deleted' if wait else 'is being deleted'}", flush=True)
    if missing and not ignore:
        raise NotFound(f"{', '.join(missing)} not found in namespace {namespace}")


def _all(api: Api, namespace: str) -> list[str]:
    return [item["metadata"]["name"] for item in api.get(collection(namespace)).get("items", [])]


def _ask(api: Api, path: str) -> str | None:
    """Ask for a deletion; return the uid of what is deleted, None where there is nothing."""
    try:
        uid = str(api.get(path)["metadata"]["uid"])
        api.delete(path, {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}})
    except NotFound:
        return None
    return uid


def _wait(api: Api, path: str, uid: str, limit: float) -> None:
    def gone() -> bool:
        try:
            return bool(api.get(path)["metadata"]["uid"] != uid)
        except NotFound:
            return True

    def why() -> str:
        try:
            plugin = api.get(path)
        except CrucibleError as error:
            return str(error)
        return (
            f"{plugin['metadata']['name']} is not gone yet: {condition(plugin, 'Ready').get('message', '')}"
        )

    wait_until(gone, limit, why)
