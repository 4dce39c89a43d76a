"""What a table says of a Plugin, of its replicas and of an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from crucible.cli.objects import condition, moment, replicas_of
from crucible.cli.table import span

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS: Final = ("NAME", "TYPE", "VERSION", "PHASE", "READY", "RESTARTS", "REASON", "AGE")
"""The CRD's printer columns, so that ``kubectl get`` shows the same."""
WIDE: Final = ("MESSAGE",)
EVENT_COLUMNS: Final = ("LAST SEEN", "TYPE", "REASON", "PLUGIN", "MESSAGE")
REPLICA_COLUMNS: Final = ("NAME", "STATE", "PID", "AGE", "RESTARTS", "LAST EXIT", "NEXT START")

PHASE_COLOURS: Final = {
    "Running": "green", "Pending": "yellow", "Starting": "yellow", "Updating": "yellow", "Stopping": "yellow",
    "Suspended": "dim", "Frozen": "dim", "BackOff": "red", "Quarantined": "red", "Refused": "red",
    "Terminating": "dim",
}  # fmt: skip


def heading(*, wide: bool, namespaces: bool) -> list[str]:
    """Return the heading of a table of Plugins."""
    return [*(["NAMESPACE"] if namespaces else []), *COLUMNS, *(WIDE if wide else ())]


def plugin_row(plugin: Mapping[str, Any], now: float, *, wide: bool, namespaces: bool) -> list[str]:
    """Return what a table says of one Plugin at a moment (unix seconds)."""
    meta, spec, status = plugin["metadata"], plugin.get("spec") or {}, plugin.get("status") or {}
    ready = condition(plugin, "Ready")
    phase = "Terminating" if "deletionTimestamp" in meta else status.get("phase", "Pending")
    return [
        *([meta.get("namespace", "")] if namespaces else []),
        meta["name"],
        str(spec.get("type", "")),
        str(spec.get("version", "")),
        phase,
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 1)}",
        str(status.get("restarts", 0)),
        str(ready.get("reason", "")),
        age(meta.get("creationTimestamp"), now),
        *([str(ready.get("message", ""))] if wide else []),
    ]


def replica_row(replica: Mapping[str, Any], now: float) -> list[str]:
    """Return what a table says of one replica."""
    last = replica.get("lastExit") or {}
    start = moment(replica.get("nextStart"))
    ended = f"{last.get('reason')} {age(last.get('at'), now)} ago" if last else "-"
    upcoming = "-" if start is None else f"in {span(start - now)}"
    return [
        replica.get("name") or f"replica {replica.get('ordinal')}",
        "quarantined" if replica.get("quarantined") else replica.get("state") or "-",
        str(replica.get("pid") or "-"),
        age(replica.get("startedAt"), now),
        str(replica.get("restarts", 0)),
        ended,
        "never, until asked" if replica.get("quarantined") else upcoming,
    ]


def event_row(event: Mapping[str, Any], now: float) -> list[str]:
    """Return what a table says of one event."""
    count = event.get("count") or 1
    return [
        age(event_time(event), now) + (f" (x{count})" if count > 1 else ""),
        str(event.get("type", "")),
        str(event.get("reason", "")),
        str((event.get("involvedObject") or {}).get("name", "")),
        str(event.get("message", "")),
    ]


def event_time(event: Mapping[str, Any]) -> str:
    """Return when an event was last seen, as the API writes times."""
    meta = event.get("metadata") or {}
    return str(event.get("lastTimestamp") or event.get("eventTime") or meta.get("creationTimestamp") or "")


def age(text: str | None, now: float) -> str:
    """Return how long ago a time was; a dash where there is none."""
    since = moment(text)
    return "-" if since is None else span(now - since)


def attention(plugin: Mapping[str, Any]) -> str:
    """Return what a person should know of a Plugin that is not as it should be; empty when it is."""
    degraded, ready = condition(plugin, "Degraded"), condition(plugin, "Ready")
    if degraded.get("status") == "True":
        return str(degraded.get("message", ""))
    return str(ready.get("message", "")) if ready.get("status") == "False" else ""


def newest_exit(plugin: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return how the instance that ended last did; empty when none has."""
    exits = [replica["lastExit"] for replica in replicas_of(plugin) if replica.get("lastExit")]
    return max(exits, key=lambda ended: moment(ended.get("at")) or 0.0, default={})
