"""``crucible top``."""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from crucible.cli import top_bus
from crucible.cli.api import Api
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.exits import WrongUsage
from crucible.cli.instances import InstanceName, read_name
from crucible.cli.objects import plugin_path
from crucible.cli.options import AllNamespaces, Data, DataOutput, Names, Release, with_access
from crucible.cli.printing import data_as
from crucible.cli.table import span, table
from crucible.cli.terminal import note
from crucible.errors import InvalidInput, NotFound, Unsupported
from crucible.model import names

EXAMPLES: Final = """\b
Examples:
  crucible top
  crucible top word-count
  crucible top -A -o json
  crucible top bus

CPU is in thousandths of a core over the last second or more, MEMORY what the kernel could not simply drop.
SENT to DENIED are what went through the egress proxy for all instances of the plugin together.
Other control planes need a metrics server, and say no more than CPU and MEMORY. 'top bus' shows what
plugins do on the bus; on a cluster, whose chart has to allow it (bus.callers.namespaces), of all brokers.
"""
_API: Final = "/apis/metrics.k8s.io/v1beta1"
_COLUMNS: Final = ("INSTANCE", "CPU", "MEMORY", "PEAK", "PIDS", "DISK", "CPU TIME", "THROTTLED")
_EGRESS_COLUMNS: Final = ("SENT", "RECEIVED", "OPEN", "ALLOWED", "DENIED")
_SUFFIXES: Final[dict[str, Decimal | int]] = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": 1,
    "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30,
}  # fmt: skip


@with_access
def command(
    access: Access,
    plugins: Names = None,
    everywhere: AllNamespaces = False,
    output: DataOutput = Data.TEXT,
    release: Release = None,
) -> None:
    """Show what the running instances of plugins use."""
    if list(plugins or ()) == [top_bus.NAME]:
        top_bus.show(access, output, release, everywhere=everywhere)
        return
    if everywhere and plugins:
        raise WrongUsage("a name belongs to one namespace: drop --all-namespaces, or the names")
    with Api(endpoint_of(access)) as api:
        namespace = None if everywhere else access.namespace or api.namespace
        for plugin in plugins or ():
            api.get(plugin_path(namespace or api.namespace, plugin))  # says so when there is none
        found = usage_of(api, namespace, frozenset(plugins or ()))
    if output is not Data.TEXT:
        print(data_as({"items": found}, output), end="")
        return
    if not found:
        note("nothing runs here whose usage is counted; see 'crucible doctor' for what this host can count")
        return
    egress = any(each["egress"] for each in found)
    heading = (*(("NAMESPACE",) if everywhere else ()), *_COLUMNS, *(_EGRESS_COLUMNS if egress else ()))
    rows = [
        [*_row(each, everywhere=everywhere), *(_egress_row(each["egress"]) if egress else ())]
        for each in found
    ]
    print("\n".join(table([heading, *rows])))


def usage_of(api: Api, namespace: str | None, plugins: frozenset[str]) -> list[dict[str, Any]]:
    """Return what instances of plugins use, by name."""
    where = "" if namespace is None else f"/namespaces/{namespace}"
    selector = {"labelSelector": f"{names.GROUP}/plugin"}
    try:
        items = api.get(f"{_API}{where}/pods", selector).get("items", [])
    except (NotFound, InvalidInput):
        raise Unsupported(
            f"{api.server} serves no metrics: a cluster needs a metrics server for that"
        ) from None
    found = [_facts(item) for item in items]
    chosen = [each for each in found if not plugins or each["plugin"] in plugins]
    return sorted(chosen, key=_order)


def _order(facts: Mapping[str, Any]) -> tuple[str, InstanceName]:
    name = facts["instance"]
    return facts["namespace"], read_name(name) or InstanceName(name, 0, 0)


def _facts(item: Mapping[str, Any]) -> dict[str, Any]:
    """Read PodMetrics; what its server does not count is None. Containers are taken together."""
    meta = item["metadata"]

    def total(name: str) -> Decimal | None:
        counted = [amount(each["usage"][name]) for each in item["containers"] if name in each["usage"]]
        return sum(counted, Decimal()) if counted else None

    return {
        "namespace": meta.get("namespace", ""),
        "plugin": (meta.get("labels") or {}).get(f"{names.GROUP}/plugin", ""),
        "instance": meta["name"],
        "cores": _plain(total("cpu")),
        "memory": _plain(total("memory")),
        "memoryPeak": _plain(total(f"{names.GROUP}/memory-peak")),
        "disk": _plain(total(f"{names.GROUP}/disk")),
        "pids": _plain(total(f"{names.GROUP}/pids")),
        "cpuSeconds": _plain(total(f"{names.GROUP}/cpu-seconds")),
        "throttledSeconds": _plain(total(f"{names.GROUP}/throttled-seconds")),
        "egress": _egress((meta.get("annotations") or {}).get(names.EGRESS)),
    }


def _egress(words: str | None) -> dict[str, int] | None:
    """Read what went through the egress proxy for a plugin; None where nobody says."""
    try:
        match json.loads(words or "null"):
            case None:
                return None
            case {
                "sent": int(sent),
                "received": int(received),
                "open": int(now),
                "connections": int(allowed),
                "denied": int(denied),
            }:
                return {
                    "sent": sent, "received": received, "open": now, "allowed": allowed, "denied": denied
                }  # fmt: skip
    except ValueError:
        pass
    raise InvalidInput(f"the server sent {words!r} for what went through the egress proxy")


def amount(text: str) -> Decimal:
    """Read a quantity as the API writes it: ``250m``, ``1234567n``, ``20Mi``.

    Raises:
        InvalidInput: it is none.
    """
    number = text.rstrip("numkMGTKi")
    try:
        return Decimal(number) * _SUFFIXES[text[len(number) :]]
    except (InvalidOperation, KeyError):
        raise InvalidInput(f"the server sent {text!r} for a quantity") from None


def _plain(value: Decimal | None) -> float | int | None:
    if value is None:
        return None
    return int(value) if value == value.to_integral_value() else float(value)


def _row(facts: Mapping[str, Any], *, everywhere: bool) -> list[str]:
    return [
        *([facts["namespace"]] if everywhere else []),
        facts["instance"],
        _shown(facts["cores"], lambda cores: f"{cores * 1000:.0f}m"),
        _shown(facts["memory"], _mebibytes),
        _shown(facts["memoryPeak"], _mebibytes),
        _shown(facts["pids"], str),
        _shown(facts["disk"], _mebibytes),
        _shown(facts["cpuSeconds"], span),
        _shown(facts["throttledSeconds"], span),
    ]


def _egress_row(facts: Mapping[str, int] | None) -> list[str]:
    if facts is None:
        return ["-"] * len(_EGRESS_COLUMNS)
    return [
        _mebibytes(facts["sent"]),
        _mebibytes(facts["received"]),
        *(str(facts[name]) for name in ("open", "allowed", "denied")),
    ]


def _shown(value: float | None, show: Callable[[float], str]) -> str:
    return "-" if value is None else show(value)


def _mebibytes(size: float) -> str:
    return f"{size / (1 << 20):.1f}Mi"
