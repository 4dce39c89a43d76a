"""Events go after a while, and when there are too many, so that a busy laptop does not fill up with them."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from crucible.errors import CrucibleError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .keys import Record
    from .store import Store

_LOG = logging.getLogger(__name__)
EVENTS = "events"
_AT_ONCE: Final = 256
"""Removals under way at the same time."""


def expired_events(records: Iterable[Record], now: datetime, keep: float) -> list[Record]:
    """The events nobody repeated for ``keep`` seconds."""
    return [record for record in records if _idle(record, now) > keep]


def surplus_events(records: Iterable[Record], most: int) -> list[Record]:
    """The events that have to go for ``most`` to be left.

    The oldest go of those that have the most to tell about them, so that a plugin that makes a noise does not
    drown what is said of the others.
    """
    told: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda each: each.revision):
        about = record.body.get("involvedObject") or {}
        told[str(about.get("uid") or about.get("name") or "")].append(record)
    each = most
    while each > 1 and sum(min(len(events), each) for events in told.values()) > most:
        each //= 2
    gone = [record for events in told.values() for record in events[:-each]]
    left = [record for events in told.values() for record in events[-each:]]
    return gone + sorted(left, key=lambda each: each.revision)[: max(len(left) - most, 0)]


def _idle(record: Record, now: datetime) -> float:
    body = record.body
    seen = body.get("lastTimestamp") or body.get("eventTime") or body["metadata"].get("creationTimestamp")
    try:
        moment = datetime.fromisoformat(str(seen))
    except ValueError:
        moment = datetime.fromisoformat(body["metadata"]["creationTimestamp"])
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (now - moment).total_seconds()


async def expire_events(store: Store, keep: float, most: int, interval: float = 10.0) -> None:
    """Remove events that expired or are too many, every ``interval`` seconds until cancelled."""
    while True:
        try:
            records = store.list(EVENTS)
            gone = expired_events(records, datetime.now(UTC), keep)
            if len(records) - len(gone) > most:
                spared = {id(record) for record in gone}
                gone += surplus_events((each for each in records if id(each) not in spared), most)
            for first in range(0, len(gone), _AT_ONCE):
                batch = gone[first : first + _AT_ONCE]
                present = (record for record in batch if store.head(record.key) is record)
                await asyncio.gather(*(store.remove(record) for record in present))
        except CrucibleError as error:
            _LOG.warning("cannot remove old events: %s", error)
        await asyncio.sleep(interval)
