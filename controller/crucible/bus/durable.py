"""``$events.put`` and ``$events.take``: events that the backbone keeps until they were taken.

A put is answered once the event is on the disk of the backbone's server. A take gets the oldest event that
nobody of the same subscription has taken, and says with ``done`` which one before is dealt with;
one that is not said to be comes again. So an event is taken at least once by every subscription that was
there when it was put.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Protocol

from crucible.bus import wire
from crucible.bus.call import Refused
from crucible.bus.ledger import Fault
from crucible.bus.wire import Code, Decoder, Frame, Kind
from crucible.core import backbone, natsconfig, subjects
from crucible.errors import Unavailable

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Mapping

    from crucible.bus.call import Call, Service
    from crucible.bus.calls import Calls
    from crucible.bus.messages import Messages
    from crucible.bus.nats import Nats
    from crucible.bus.natswire import Message
    from crucible.bus.terms import Terms

TAKES_LIMIT: Final = 16
"""Takes and puts of one plugin that may wait at once, of each kind."""
ACK_SECONDS: Final = 30
"""After which an event that was taken and is not said to be done comes again."""
UNUSED_SECONDS: Final = 3 * 24 * 3600
"""After which a subscription that nobody takes from is forgotten."""
_PUT_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 5.0
_LATE_SECONDS: Final = 1.0
_SHORTEST: Final = 0.02
_OPEN_LIMIT: Final = 1024
_IDENT: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_NANO: Final = 1_000_000_000
_FULL: Final = frozenset({10023, 10047, 10076, 10077, 10167})
"""What JetStream says, as ``err_code``, when there is no room for one more message."""
_STREAM_EXISTS: Final = 10058
"""With other settings than ours: whoever made it knows why."""
NO_RESPONDERS: Final = 503
"""What the server says where nobody subscribes to what was published."""
_OURS_FIRST: Final = {"subject", "pattern", "subscription", "done", "id"}


class Ground(Protocol):
    """What this needs of the backbone."""

    terms: Terms

    @property
    def machine(self) -> str:
        """Who we are."""
        ...

    @property
    def nats(self) -> Nats | None:
        """The connection, if there is one."""
        ...


class Durable:
    """All durable events that go through this broker."""

    def __init__(self, ground: Ground, calls: Calls, messages: Messages) -> None:
        self._ground = ground
        self._calls = calls
        self._messages = messages
        self._tasks: dict[Call, asyncio.Task[None]] = {}
        self._waiting: dict[tuple[str, str], int] = {}
        self._consumers: dict[str, str] = {}
        self._streams: set[str] = set()
        self._open: OrderedDict[tuple[str, str, str], str] = OrderedDict()

    def services(self) -> dict[str, Service]:
        """Return what is answered."""
        return {"$events.put": _Doing(self, self._put), "$events.take": _Doing(self, self._take)}

    def left(self) -> None:
        """The connection is gone; what was taken and is not done comes again."""
        self._consumers.clear()
        self._streams.clear()
        self._open.clear()

    def begin(self, call: Call, do: Callable[[Call], Coroutine[Any, Any, Frame]]) -> None:
        """Do what is asked, in its own time."""
        key = (f"{call.seat.key}", call.frame.name)
        if self._waiting.get(key, 0) >= TAKES_LIMIT:
            member = call.seat.member
            self._calls.ledger.fault(member.namespace, member.plugin, Fault.OVERLOADED, call.frame.name)
            self._calls.fail(call, Code.OVERLOADED, f"{TAKES_LIMIT} of these wait already")
            return
        self._waiting[key] = self._waiting.get(key, 0) + 1
        task = self._calls.loop.create_task(self._do(call, do))
        self._tasks[call] = task

        def over(_: object) -> None:
            self._tasks.pop(call, None)
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]

        task.add_done_callback(over)

    def cancelled(self, call: Call) -> None:
        """Somebody does not want it any more."""
        task = self._tasks.get(call)
        if task is not None:
            task.cancel()

    async def _do(self, call: Call, do: Callable[[Call], Coroutine[Any, Any, Frame]]) -> None:
        try:
            self._calls.end(call, await do(call), told=True)
        except Refused as refusal:
            member = call.seat.member
            if refusal.code is Code.NOT_PERMITTED:
                detail = f"{call.frame.name} {call.frame.headers.get('subject', '')}"
                self._calls.ledger.fault(member.namespace, member.plugin, Fault.REFUSED, detail)
            self._calls.fail(call, refusal.code, str(refusal), refusal.headers)
        except Unavailable as error:
            self._calls.fail(call, Code.UNAVAILABLE, str(error))

    def _connection(self, call: Call) -> Nats:
        """Return the way to the streams.

        Raises:
            Refused: there is none, or the namespace is not on it.
        """
        connection, namespace = self._ground.nats, call.seat.member.namespace
        if not self._ground.machine:
            why = (
                "durable events are kept on the backbone: start crucible up with --backbone, on a cluster "
                "install the chart with bus.nats.enabled=true"
            )
            raise Refused(Code.UNAVAILABLE, why)
        if why := self._ground.terms.keeps(namespace):
            raise Refused(Code.UNAVAILABLE, why)
        if connection is None:
            raise Refused(Code.UNAVAILABLE, "the backbone is not reached")
        return connection

    # Putting.

    async def _put(self, call: Call) -> Frame:
        seat, headers = call.seat, call.frame.headers
        subject = headers.get("subject", "")
        if not subjects.is_subject(subject):
            raise Refused(Code.MALFORMED, f"{subject!r} is no subject: say which in the header subject")
        if not seat.may_publish(subject):
            why = f"the manifest lacks spec.capabilities.bus.publish: [{subject}]"
            raise Refused(Code.NOT_PERMITTED, why)
        ident = headers.get("id", "")
        if ident and _IDENT.fullmatch(ident) is None:
            raise Refused(Code.MALFORMED, "the header id: letters, digits, '_', '.', ':', '-', 128 at most")
        connection, namespace = self._connection(call), seat.member.namespace
        rest = {name: text for name, text in headers.items() if name not in _OURS_FIRST}
        frame = Frame(Kind.PUBLISH, 0, subject, call.frame.payload, rest, call.frame.priority)
        data = wire.encode(frame)
        if len(data) > connection.payload_limit:
            raise Refused(Code.TOO_LARGE, f"the backbone takes {connection.payload_limit} bytes at once")
        to = backbone.keep(namespace, self._ground.machine, seat.name, subject)
        once = {"Nats-Msg-Id": f"{seat.name}:{ident}"} if ident else {}
        await self._make(connection, namespace)
        try:
            answer = await connection.request(to, data, _PUT_SECONDS, once)
        except Unavailable:
            self._streams.discard(namespace)  # it may have been removed
            raise
        words = _object(answer)
        if answer.status == NO_RESPONDERS or "stream" not in words:
            raise _refusal(words, namespace)
        self._calls.ledger.of(namespace, seat.name).published += 1
        if not words.get("duplicate"):
            self._messages.deliver(namespace, seat.name, frame)
        return Frame(Kind.ANSWER, call.frame.id, headers={"sequence": str(words.get("seq", ""))})

    # Taking.

    async def _take(self, call: Call) -> Frame:
        seat, headers = call.seat, call.frame.headers
        pattern, name = headers.get("pattern", ""), headers.get("subscription", "main")
        if not subjects.is_pattern(pattern):
            raise Refused(Code.MALFORMED, f"{pattern!r} is no pattern: say which in the header pattern")
        if not backbone.is_subscription(name):
            why = "the header subscription: letters, digits and '-', 32 at most, or '@' and these"
            raise Refused(Code.MALFORMED, why)
        _check(call, pattern)
        connection, namespace = self._connection(call), seat.member.namespace
        whose = "" if self._ground.terms.kindred else self._ground.machine
        consumer = backbone.consumer(whose, seat.name, name)
        self._finish(connection, (namespace, consumer, headers.get("done", "")))
        await self._follow(connection, namespace, consumer, pattern)
        stream = backbone.stream(namespace)
        ask = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        while True:
            seconds = self._patience(call)
            pull = json.dumps({"batch": 1, "expires": int(seconds * _NANO)}).encode()
            message = await connection.take(ask, pull, seconds + _LATE_SECONDS)
            if message is not None and message.status == NO_RESPONDERS:
                self._consumers.pop(f"{namespace}/{consumer}", None)
                raise Refused(Code.UNAVAILABLE, "the subscription is gone: take again")
            if message is None or message.status:
                _check(call, pattern)
                continue
            sequence = _sequence_of(message.reply, stream, consumer)
            found = self._event(call, message, pattern)
            if found is not None and sequence:
                self._open_one((namespace, consumer, sequence), message.reply)
                return found._replace(headers=_told({**found.headers, "sequence": sequence}))
            if sequence:
                connection.publish("", wire.Priority.HIGH, message.reply, b"+TERM")

    def _patience(self, call: Call) -> float:
        """Return for how long the stream is asked: it gives nothing to a call that has ended meanwhile."""
        return max(min(_POLL_SECONDS, 0.8 * (call.due - self._calls.loop.time())), _SHORTEST)

    def _event(self, call: Call, message: Message, pattern: str) -> Frame | None:
        """Return an event as it is told here; None when it may not be."""
        event = backbone.event_of(message.subject)
        if event is None or event.namespace != call.seat.member.namespace:
            return None
        if not subjects.covers(pattern, event.subject):
            return None
        terms = self._ground.terms
        ours = terms.kindred or event.machine == self._ground.machine  # replicas judged it when it was put
        if not ours and not terms.may_tell(event):
            return None
        decoder = Decoder()
        try:
            frames = list(decoder.feed(message.payload))
        except wire.BrokenFrame:
            return None
        if len(frames) != 1 or frames[0].kind != Kind.PUBLISH:
            return None
        if not wire.RESERVED_HEADERS.isdisjoint(frames[0].headers):
            return None
        sender = event.plugin if ours else terms.called(event.plugin, event.machine)
        headers = {**frames[0].headers, "subject": event.subject, "from": sender}
        return Frame(Kind.ANSWER, call.frame.id, payload=frames[0].payload, headers=headers)

    def _open_one(self, key: tuple[str, str, str], reply: str) -> None:
        """Remember how an event can be said to be done."""
        self._open[key] = reply
        while len(self._open) > _OPEN_LIMIT:
            self._open.popitem(last=False)

    def _finish(self, connection: Nats, done: tuple[str, str, str]) -> None:
        """An event is dealt with; of one that is not known here it is too late, and it comes again."""
        reply = self._open.pop(done, None)
        if reply is not None:
            connection.publish("", wire.Priority.HIGH, reply, b"+ACK")

    async def _follow(self, connection: Nats, namespace: str, consumer: str, pattern: str) -> None:
        """See to it that the stream keeps for a subscription what fits its pattern."""
        if self._consumers.get(f"{namespace}/{consumer}") == pattern:
            return
        stream, subject = backbone.stream(namespace), backbone.kept(namespace, pattern)
        config = {
            "name": consumer,
            "durable_name": consumer,
            "filter_subject": subject,
            "ack_policy": "explicit",
            "ack_wait": ACK_SECONDS * _NANO,
            "deliver_policy": "all",
            "max_ack_pending": _OPEN_LIMIT,
            "inactive_threshold": UNUSED_SECONDS * _NANO,
        }
        body = json.dumps({"stream_name": stream, "config": config, "action": ""}).encode()
        to = f"$JS.API.CONSUMER.CREATE.{stream}.{consumer}.{subject}"
        await self._make(connection, namespace)
        words = _object(await connection.request(to, body, _PUT_SECONDS))
        if "config" not in words:
            self._streams.discard(namespace)
            raise _refusal(words, namespace)
        self._consumers[f"{namespace}/{consumer}"] = pattern

    async def _make(self, connection: Nats, namespace: str) -> None:
        """See to it that a namespace has a stream, where that is ours to do.

        Other replicas hear what is put, so that nobody would say that no stream does.
        """
        copies = self._ground.terms.copies
        if not copies or namespace in self._streams:
            return
        body = json.dumps(natsconfig.stream_settings(namespace, copies)).encode()
        to = f"$JS.API.STREAM.CREATE.{backbone.stream(namespace)}"
        words = _object(await connection.request(to, body, _PUT_SECONDS))
        if "config" not in words and _error_of(words) != _STREAM_EXISTS:
            raise _refusal(words, namespace)
        self._streams.add(namespace)


class _Doing:
    """One of the services."""

    def __init__(self, durable: Durable, do: Callable[[Call], Coroutine[Any, Any, Frame]]) -> None:
        self._durable = durable
        self._do = do

    def begin(self, call: Call) -> None:
        """Do it, later."""
        self._durable.begin(call, self._do)

    def item(self, call: Call, frame: Frame) -> None:
        """No item has credit, so none comes."""

    def credit(self, call: Call, items: int) -> None:
        """Nothing is sent."""

    def permits(self, call: Call) -> bool:
        """Say whether it is still granted; a put is judged as it begins, and soon over."""
        pattern = call.frame.headers.get("pattern", "")
        return not subjects.is_pattern(pattern) or call.seat.may_subscribe(pattern)

    def cancelled(self, call: Call) -> None:
        """Stop."""
        self._durable.cancelled(call)


def _check(call: Call, pattern: str) -> None:
    if not call.seat.may_subscribe(pattern):
        why = f"the manifest lacks spec.capabilities.bus.subscribe: [{pattern}]"
        raise Refused(Code.NOT_PERMITTED, why)


def _told(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return what an event is told with: without its own headers where those leave ours no room."""
    try:
        wire.encode_headers(headers)
    except wire.BrokenFrame:
        return {name: headers[name] for name in ("subject", "from", "sequence")}
    return headers


def _sequence_of(reply: str, stream: str, consumer: str) -> str:
    """Return an event's number in its stream from how its taking is confirmed; empty: that is something else.

    It is ``$JS.ACK.STREAM.CONSUMER.TIMES.NUMBER.…``; some servers put a domain and an account in front.
    """
    words = reply.split(".")
    at = 2 if words[2:4] == [stream, consumer] else 4
    if words[:2] != ["$JS", "ACK"] or words[at : at + 2] != [stream, consumer] or len(words) < at + 4:
        return ""
    return words[at + 3]


def _refusal(words: Mapping[str, Any], namespace: str) -> Refused:
    """Return why a stream does not do what was asked."""
    error = words.get("error")
    if not isinstance(error, dict):
        return Refused(Code.UNAVAILABLE, f"the backbone keeps no events of the namespace {namespace}")
    said = str(error.get("description", ""))[:200]
    if error.get("err_code") in _FULL:
        return Refused(Code.STORE_FULL, f"the backbone has no room for more events of {namespace}: {said}")
    return Refused(Code.UNAVAILABLE, f"the backbone refuses: {said}")


def _error_of(words: Mapping[str, Any]) -> int:
    """Return the number of what is wrong; 0: nothing is."""
    error = words.get("error")
    return int(error.get("err_code", 0)) if isinstance(error, dict) else 0


def _object(message: Message) -> Mapping[str, Any]:
    try:
        found = json.loads(message.payload or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
