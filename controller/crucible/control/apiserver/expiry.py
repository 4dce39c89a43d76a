"""Events go after a while, so that a busy laptop does not fill up with them."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from crucible.errors import CrucibleError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .keys import Record
    from .store import Store

_LOG = logging.getLogger(__name__)
EVENTS = "events"


def expired_events(records: Iterable[Record], now: datetime, keep: float) -> list[Record]:
    """The events nobody repeated for ``keep`` seconds."""
    return [record for record in records if _idle(record, now) > keep]


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


async def expire_events(store: Store, keep: float, interval: float = 60.0) -> None:
    """Remove expired events every ``interval`` seconds until cancelled."""
    while True:
        try:
            gone = expired_events(store.list(EVENTS), datetime.now(UTC), keep)
            present = (record for record in gone if store.head(record.key) is record)
            await asyncio.gather(*(store.remove(record) for record in present))
        except CrucibleError as error:
            _LOG.warning("cannot remove old events: %s", error)
        await asyncio.sleep(interval)
