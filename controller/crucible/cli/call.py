"""``crucible call``."""

import asyncio
import json
import re
import secrets
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from crucible.cli.endpoint import Access, bus_of
from crucible.cli.options import Data, DataOutput, Release, Timeout, with_access
from crucible.cli.terminal import one_line
from crucible.cli.waiting import seconds_of
from crucible.errors import InvalidInput

if TYPE_CHECKING:
    from crucible.bus.host import Client

EXAMPLES: Final = """\b
Examples:
  crucible call tokenizer.split '{"text": "to be"}'
  crucible call tokenizer.split -o json --timeout 2s < text.json
  crucible call notes.reindex --priority low
  crucible call tokenizer.split '{"text": "to be"}' --context prod -n team-a

The payload is JSON: an argument, or - for standard input; without one the method gets none. Whoever
runs the local control plane, or may forward ports to a cluster's broker where its chart allows callers
(bus.callers.namespaces), may call every plugin that is on the bus (spec.capabilities.bus, even if that
is {}). What the method answers is printed; exit code 3: no such plugin or method, 4: refused,
1: it failed, or was not there.
"""

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?\.[A-Za-z0-9_-]{1,64}")


class Urgency(StrEnum):
    """How urgent a call is."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


@with_access
def command(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    access: Access,
    method: Annotated[str, typer.Argument(metavar="PLUGIN.METHOD", hidden=True, help="Whom and what.")],
    payload: Annotated[
        str | None, typer.Argument(metavar="JSON", hidden=True, help="The payload; - for standard input.")
    ] = None,
    output: DataOutput = Data.TEXT,
    timeout: Timeout = "30s",
    priority: Annotated[
        Urgency,
        typer.Option("--priority", metavar="critical|high|normal|low", help="More urgent calls go first."),
    ] = Urgency.NORMAL,
    release: Release = None,
) -> None:
    """Call a method of a plugin, and print what it answers."""
    if not _NAME.fullmatch(method):
        raise InvalidInput(f"{method!r} is no PLUGIN.METHOD: say for example tokenizer.split")
    sent = _payload(sys.stdin.read() if payload == "-" else payload or "")
    limit = seconds_of(timeout)
    bus = bus_of(access, release)
    answer = asyncio.run(_call(bus, method, sent, limit, list(Urgency).index(priority)))
    print(_shown(answer, output), end="")


async def _call(bus: "Client", method: str, payload: bytes, timeout: float, priority: int) -> bytes:  # noqa: ASYNC109 - the call's deadline
    headers = {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"}
    async with bus:
        frame = await bus.call(method, payload, timeout=timeout, priority=priority, headers=headers)
    return frame.payload


def _payload(text: str) -> bytes:
    """Return what to send.

    Raises:
        InvalidInput: it is no JSON.
    """
    if not text.strip():
        return b""
    try:
        return json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the payload is no JSON: {error}") from error


def _shown(answer: bytes, output: Data) -> str:
    """Return an answer as people, or programs, read it."""
    if not answer:
        return "null\n" if output is not Data.TEXT else ""
    try:
        value: Any = json.loads(answer)
    except (ValueError, RecursionError):
        raise InvalidInput(f"the answer is no JSON, but {len(answer)} bytes of something else") from None
    if output is not Data.TEXT:
        from crucible.cli.printing import data_as  # noqa: PLC0415 - loads YAML

        return data_as(value, output)
    if isinstance(value, str):
        return "".join(f"{one_line(line)}\n" for line in value.splitlines())
    return json.dumps(value, indent=2) + "\n"
