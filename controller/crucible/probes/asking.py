"""Asks one probe once. Whoever answers is hostile: little is read, for a short time, and nothing followed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from crucible.core import expression
from crucible.core.health import rate, within
from crucible.errors import Conflict, CrucibleError, NotFound, Unavailable, Unsupported
from crucible.listening import beginning
from crucible.model.door import Door, Doorway
from crucible.model.health import Answer
from crucible.probes.http import request_of, status_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crucible.model.probe import ExecProbe, GrpcProbe, HttpProbe, Probe, TcpProbe
    from crucible.model.usage import Usage
    from crucible.model.workload import Slot
    from crucible.runtimes.base import Runtime

_HEAD: Final = 4096
"""Bytes in which an answer's first line has to end."""
_OUTPUT: Final = 1024
"""Bytes of a command's output that are looked at."""
_PING: Final = "are you there?"
_WORDS: Final = 200
"""Characters of it that are said."""
_SETTLES: Final = 0.2
"""Seconds in which a relay ends a connection that the plugin did not accept."""


class Call(Protocol):
    """Calls a method of whoever is behind a door to the bus."""

    async def __call__(self, key: str, method: str, payload: str, seconds: float) -> tuple[str, str]:
        """Return the code of an error, or an empty one, and the text of the answer.

        Raises:
            Unavailable: there is no broker now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom to ask: an instance, and what runs it.

    Attributes:
        runtime: what runs it.
        plugin_uid: the Plugin.
        slot: the instance.
        since: unix seconds when it was first seen to run.
        before: what it used when this probe was asked last; None: it was not.
        others: what its other probes say now, by name.
        call: calls a method of whoever is behind a door to the bus; None: there is no bus.
    """

    runtime: Runtime
    plugin_uid: str
    slot: Slot
    since: float = 0.0
    before: Usage | None = None
    others: Mapping[str, bool] = field(default_factory=dict)
    call: Call | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What one asking came to.

    Attributes:
        answer: None where nothing can be said of the plugin, because it is the runtime that does not answer,
            or the instance has gone.
        usage: what the instance used, where that was asked.
    """

    answer: Answer | None
    usage: Usage | None = None


async def ask(probe: Probe, subject: Subject) -> Asked:
    """Ask once, within the probe's timeout."""
    try:
        async with asyncio.timeout(probe.timeout):
            if probe.resource is not None or probe.custom is not None:
                return await _ask_usage(probe, subject)
            return Asked(await _ask(probe, subject))
    except TimeoutError:
        return Asked(Answer(ok=False, message=f"no answer within {probe.timeout:g} s"))
    except (NotFound, Conflict, Unavailable):
        return Asked(None)
    except CrucibleError as error:
        return Asked(Answer(ok=False, message=str(error)))
    except OSError as error:
        return Asked(Answer(ok=False, message=(error.strerror or str(error)).lower()))


async def _ask_usage(probe: Probe, subject: Subject) -> Asked:
    """Judge by what the instance uses; the first asking has no rate to speak of, and says nothing."""
    usage = await subject.runtime.usage(subject.plugin_uid, subject.slot)
    if usage is None:
        raise Unsupported("what it uses cannot be told on this host: see 'crucible doctor'")
    if subject.before is None and usage.cores is None:
        return Asked(None, usage)
    cpu = rate(subject.before or usage, usage)
    if probe.resource is not None:
        return Asked(within(usage, cpu, probe.resource), usage)
    if probe.custom is None:
        raise ValueError(f"nobody asks a probe of kind {probe.kind}")
    figures = {"memory": usage.memory, "cpu": cpu, "pids": usage.pids, "throttled": usage.throttled}
    told = subject.runtime.capabilities.usage
    facts = {
        "usage": {name: figure for name, figure in figures.items() if name in told},
        "probes": dict(subject.others),
        "age": usage.at - subject.since,
    }
    try:
        well = expression.holds(probe.custom.expression, facts)
    except expression.Unfit as error:
        return Asked(Answer(ok=False, message=f"the expression {error}"), usage)
    return Asked(Answer(ok=well, message="" if well else "the expression does not hold"), usage)


async def _ask(probe: Probe, subject: Subject) -> Answer:
    if probe.http is not None:
        return await _ask_http(probe.http, subject)
    if probe.tcp is not None:
        return await _ask_tcp(probe.tcp, subject)
    if probe.exec is not None:
        return await _ask_command(probe.exec, subject)
    if probe.grpc is not None:
        return await _ask_grpc(probe.grpc, subject)
    if probe.ping is not None and subject.call is not None:
        return await _ask_ping(subject.call, subject, probe.timeout)
    raise ValueError(f"nobody asks a probe of kind {probe.kind}")


async def _ask_ping(call: Call, subject: Subject, seconds: float) -> Answer:
    """Have the broker ask; one that does not run says nothing of the plugin."""
    way = Doorway(Door.BUS, "", "", subject.plugin_uid, str(subject.slot))
    code, text = await call(way.key, "$ping", _PING, seconds)
    if code:
        return Answer(ok=False, message=text[:_WORDS] or code)
    well = text == _PING
    return Answer(ok=well, message="" if well else "the answer is not what was asked")


async def _ask_http(probe: HttpProbe, subject: Subject) -> Answer:
    """Send a request and read no more than the first line of what comes back."""
    loop = asyncio.get_running_loop()
    async with subject.runtime.connect(subject.plugin_uid, subject.slot, probe.port) as door:
        request, head = request_of(probe), b""
        sent = door.socket.send(request)  # it has room for more: nothing was sent before
        if sent < len(request):
            await loop.sock_sendall(door.socket, request[sent:])
        while b"\n" not in head and len(head) < _HEAD:
            chunk = await loop.sock_recv(door.socket, _HEAD)
            if not chunk:
                break
            head += chunk
    status = status_of(head)
    if status is None:
        return Answer(ok=False, message="the answer is no HTTP" if head else "no answer before the end")
    well = 200 <= status < 400  # noqa: PLR2004 - HTTP's own classes
    return Answer(ok=True) if well else Answer(ok=False, message=f"status {status}")


async def _ask_tcp(probe: TcpProbe, subject: Subject) -> Answer:
    """Connect, and be content; a relay's connection has to last a moment longer."""
    async with subject.runtime.connect(subject.plugin_uid, subject.slot, probe.port) as door:
        if not door.relayed:
            return Answer(ok=True)
        try:
            async with asyncio.timeout(_SETTLES):
                if not await asyncio.get_running_loop().sock_recv(door.socket, 1):
                    return Answer(ok=False, message="connection refused")
        except TimeoutError:
            pass  # nobody ended it
        return Answer(ok=True)


async def _ask_grpc(probe: GrpcProbe, subject: Subject) -> Answer:
    """Call the health service, over a connection of its own as the kubelet does."""
    from crucible.probes import grpc  # noqa: PLC0415 - megabytes that only a plugin with such a probe has to pay

    loop = asyncio.get_running_loop()
    call = grpc.Call(probe)
    async with subject.runtime.connect(subject.plugin_uid, subject.slot, probe.port) as door:
        while not call.over:
            await loop.sock_sendall(door.socket, call.outgoing())
            call.take(await loop.sock_recv(door.socket, _HEAD))
    return call.answer()


async def _ask_command(probe: ExecProbe, subject: Subject) -> Answer:
    """Run a command, and keep the beginning of what it says."""
    session = await subject.runtime.exec(
        subject.plugin_uid, subject.slot, probe.command, stdin=False, tty=False
    )
    try:
        said = await beginning(session, _OUTPUT)
        code = await session.wait()
    finally:
        await session.close()
    if code == 0:
        return Answer(ok=True)
    words = " ".join(said.decode(errors="replace").split())[:_WORDS]
    return Answer(ok=False, message=f"status {code}: {words}" if words else f"status {code}")
