"""Follows one store on the backbone: its messages, in their order, each once."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Any, Final

from crucible.bus import mirror
from crucible.bus.mirror import Mirror
from crucible.core import natsconfig
from crucible.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from crucible.bus.nats import Nats
    from crucible.bus.natswire import Message

_SECONDS: Final = 10.0
_UNUSED: Final = 30 * 1_000_000_000

log = logging.getLogger(__name__)


class Follower:
    """One store.

    Attributes:
        key: namespace and name of the plugin.
        mirror: what it holds, as far as it was read.
        lock: one request at a time decides by it.
        broken: it is followed no more.
        live: all there was when it was opened is read; what comes is news.
    """

    def __init__(
        self,
        key: tuple[str, str],
        connection: Nats,
        tell: Callable[[tuple[str, str], str, dict[str, str], bytes], None],
        ended: Callable[[tuple[str, str]], None],
    ) -> None:
        """Prepare; :meth:`open` does the rest.

        Args:
            key: which.
            connection: by which it is followed.
            tell: called with what changes, once :attr:`live`.
            ended: called when it is followed no more.
        """
        self.key = key
        self.mirror = Mirror()
        self.lock = asyncio.Lock()
        self.broken = False
        self.live = False
        self._ended = ended
        self._connection = connection
        self._tell = tell
        self._moved = asyncio.Event()
        self._delivered = 0
        self._sid = 0

    async def open(self, ask: Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]) -> None:
        """Have the stream deliver all that it holds, and what comes.

        Raises:
            Unavailable: it does not.
        """
        self._sid, to = self._connection.follow(self._heard)
        name, fits = f"store-{secrets.token_hex(8)}", mirror.subject(*self.key)
        config = {
            "name": name,
            "deliver_subject": to,
            "filter_subject": fits,
            "ack_policy": "none",
            "deliver_policy": "all",
            "inactive_threshold": _UNUSED,
            "mem_storage": True,
            "num_replicas": 1,
        }
        body = {"stream_name": natsconfig.STORES, "config": config, "action": "create"}
        words = await ask(f"$JS.API.CONSUMER.CREATE.{natsconfig.STORES}.{name}.{fits}", body)
        if "config" not in words:
            raise Unavailable(f"the store cannot be followed: {words.get('error')}")

    def _heard(self, message: Message) -> None:
        """Take the next message; one that is missing, or that no broker wrote, ends it."""
        words = message.reply.split(".")
        at = next((at for at in (2, 4) if words[at : at + 1] == [natsconfig.STORES]), -1)
        if message.status or at < 0 or self.broken:
            return
        try:
            number, place = int(words[at + 3]), int(words[at + 4])
            change = self.mirror.apply(number, message.subject.rpartition(".")[2], message.payload)
        except (ValueError, IndexError) as error:
            log.warning("%s/%s: the store is read anew: %s", *self.key, error)
            self.end()
            return
        if place != self._delivered + 1:
            log.warning(
                "%s/%s: the store is read anew: message %d after %d", *self.key, place, self._delivered
            )
            self.end()
            return
        self._delivered = place
        if change is not None and self.live:
            headers = {"revision": str(change.revision), "op": change.op}
            self._tell(self.key, change.key, headers, change.value)
        self._moved.set()

    async def until(self, number: int) -> None:
        """Wait until a message was read.

        Raises:
            Unavailable: it does not come.
        """
        await self._until(lambda: self.mirror.last >= number)

    async def _until(self, holds: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                while not holds():
                    if self.broken:
                        raise Unavailable("the store is not followed any more: ask again")
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            self.end()
            raise Unavailable("the backbone does not deliver what is in the store") from None

    def end(self) -> None:
        """Follow it no more."""
        if not self.broken:
            self.broken = True
            self._connection.leave(self._sid)
            self._moved.set()
            self._ended(self.key)
