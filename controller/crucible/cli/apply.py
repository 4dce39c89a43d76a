"""``crucible apply``."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.exits import WrongUsage
from crucible.cli.manifests import read_wanted
from crucible.cli.options import Files, Timeout, with_access
from crucible.cli.waiting import LASTING, is_ready, seconds_of, unready, wait_until
from crucible.errors import NotFound
from crucible.manifests.resources import PLUGIN
from crucible.manifests.wanted import Wanted
from crucible.model import names

if TYPE_CHECKING:
    from crucible.cli.api import Api

EXAMPLES: Final = """\b
Examples:
  crucible apply -f plugin.yaml
  crucible apply -f plugins/ --wait
  crucible apply -f plugin.yaml --dry-run
  generate-manifest | crucible apply -f -

Every manifest is checked before the first is sent. A folder with a plugin.yaml is one plugin; of any
other folder, every *.yaml, *.yml and *.json directly in it is applied. A relative source.path counts
from its manifest's folder, and applying again picks up what changed in it.
"""
_MANAGER: Final = "crucible"
_DRY: Final = {"dryRun": "All"}


@with_access
def command(
    access: Access,
    files: Files = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check only; ask no control plane.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return only when all are ready.")] = False,
    timeout: Timeout = "60s",
) -> None:
    """Create plugins, or change them, from manifests."""
    if not files:
        raise WrongUsage("name the manifests: crucible apply -f FILE, a folder, or - for standard input")
    limit = seconds_of(timeout)
    if dry_run:
        for wanted in read_wanted(files, access.namespace, "default"):
            print(f"{wanted.label} valid (dry run)")
        return
    from crucible.cli.api import Api  # noqa: PLC0415 - checking alone needs no client

    endpoint = endpoint_of(access)
    everything = read_wanted(files, access.namespace, endpoint.namespace)
    with Api(endpoint) as api:
        _rehearse(api, everything)
        sent = [(wanted, _apply(api, wanted)) for wanted in everything]
        for wanted, stale in sent:
            if wait and wanted.resource is PLUGIN:
                _wait(api, wanted, stale, limit)


def _rehearse(api: "Api", everything: tuple[Wanted, ...]) -> None:
    """Let the server check all before any is kept, so that a refusal of the last leaves nothing half done."""
    made = {wanted.name for wanted in everything if wanted.resource.kind == "Namespace"}
    for wanted in everything:
        if len(everything) > 1 and wanted.namespace not in made:
            send(api, wanted, _DRY)


def _apply(api: "Api", wanted: Wanted) -> str | None:
    """Send one object, say what became of it, and return the revision that should disappear because of it."""
    try:
        before: dict[str, Any] | None = api.get(wanted.path)
    except NotFound:
        before = None
    created, after = send(api, wanted, {})
    changed = before is None or _version(before) != _version(after)
    print(f"{wanted.label} {'created' if created else 'configured' if changed else 'unchanged'}", flush=True)
    if before is None or _digest(before) == _digest(after):
        return None
    return str((before.get("status") or {}).get("revision", ""))


def send(api: "Api", wanted: Wanted, params: dict[str, str]) -> tuple[bool, dict[str, Any]]:
    """Apply one object; return whether that made it, and what it is now."""
    from crucible.cli.api import APPLY_PATCH  # noqa: PLC0415 - see above

    asked = {"fieldManager": _MANAGER, "force": "true", "fieldValidation": "Strict", **params}
    return api.patch(wanted.path, wanted.body, APPLY_PATCH, asked)


def _version(found: dict[str, Any]) -> str:
    return str(found["metadata"].get("resourceVersion"))


def _digest(found: dict[str, Any]) -> str:
    return str((found["metadata"].get("annotations") or {}).get(names.SOURCE_DIGEST, ""))


def _wait(api: "Api", wanted: Wanted, stale: str | None, limit: float) -> None:
    wait_until(
        lambda: is_ready(api.get(wanted.path), stale=stale),
        limit,
        lambda: unready(api.get(wanted.path)),
        lasting=LASTING,
    )
    phase = (api.get(wanted.path).get("status") or {}).get("phase")
    print(f"{wanted.label} {'suspended' if phase == 'Suspended' else 'ready'}", flush=True)
