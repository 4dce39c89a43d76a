"""How a client introduces itself: what HELLO may hold, read strictly; and what WELCOME says."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from crucible.bus import wire
from crucible.bus.wire import BrokenFrame, Code, Frame, Kind

if TYPE_CHECKING:
    from crucible.model.bus import Member

WINDOW: Final = 64
LARGEST_WINDOW: Final = 1024
METHODS_LIMIT: Final = 256
_SIZE_LIMIT: Final = 32 * 1024
_METHOD: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Hello:
    """What a client says of itself.

    Attributes:
        methods: what may be called on this connection.
        window: calls it takes at once.
        namespace: the host application only: where it wants to act; empty: not said.
    """

    methods: frozenset[str] = frozenset()
    window: int = WINDOW
    namespace: str = ""


def read_hello(frame: Frame) -> Hello:
    """Read a HELLO.

    Raises:
        BrokenFrame: it is none, or speaks no version that we do.
    """
    if frame.kind != Kind.HELLO:
        raise BrokenFrame(Code.MALFORMED, "the first frame is no HELLO")
    said = _object(frame.payload)
    versions = said.get("wire")
    if not isinstance(versions, list) or wire.VERSION not in versions:
        raise BrokenFrame(Code.UNSUPPORTED_VERSION, f"spoken here: {wire.VERSION}")
    methods = said.get("methods", [])
    if not isinstance(methods, list) or len(methods) > METHODS_LIMIT or not all(map(_is_method, methods)):
        raise BrokenFrame(
            Code.MALFORMED,
            f"methods: at most {METHODS_LIMIT} names of letters, digits, '_' and '-', 64 long at most",
        )
    window = said.get("window", WINDOW)
    if type(window) is not int or not 1 <= window <= LARGEST_WINDOW:
        raise BrokenFrame(Code.MALFORMED, f"window: a number from 1 to {LARGEST_WINDOW}")
    namespace = said.get("namespace", "")
    if not isinstance(namespace, str) or (namespace and _NAMESPACE.fullmatch(namespace) is None):
        raise BrokenFrame(Code.MALFORMED, "namespace: the name of one")
    return Hello(frozenset(methods), window, namespace)


def welcome(member: Member, instance: str) -> Frame:
    """Return the answer to a HELLO."""
    text = json.dumps(
        {
            "wire": wire.VERSION,
            "namespace": member.namespace,
            "plugin": member.plugin,
            "instance": instance,
        },
        separators=(",", ":"),
    )
    return Frame(Kind.WELCOME, payload=text.encode())


def _object(payload: bytes) -> dict[str, Any]:
    if len(payload) > _SIZE_LIMIT:
        raise BrokenFrame(Code.TOO_LARGE, f"HELLO is larger than {_SIZE_LIMIT} bytes")
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError):
        raise BrokenFrame(Code.MALFORMED, "HELLO is no JSON") from None
    if not isinstance(said, dict):
        raise BrokenFrame(Code.MALFORMED, "HELLO is no JSON object")
    return said


def _is_method(name: object) -> bool:
    return isinstance(name, str) and _METHOD.fullmatch(name) is not None
