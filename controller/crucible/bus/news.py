"""What machines tell each other of themselves: a beat, what one has for another, how it can be met. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from crucible.bus import wire
from crucible.bus.wire import BrokenFrame, Code, Decoder, Frame, Kind
from crucible.core.meeting import meeting_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crucible.core import backbone
    from crucible.model.backbone import Meeting

PLUGINS_LIMIT: Final = 4096
STATE_LIMIT: Final = 300
_EPOCH_LIMIT: Final = 64
_HELLO_LIMIT: Final = 1024
_LINE: Final = 1
"""Version of how a line begins."""


class News(NamedTuple):
    """What a machine says that it has for another.

    Attributes:
        epoch: its word for this stay of it on the backbone.
        version: of what it has.
        plugins: why each would not answer, empty when it would, by namespace and name.
        meeting: how it can be met; None: through the server only.
    """

    epoch: str
    version: int
    plugins: Mapping[tuple[str, str], str]
    meeting: Meeting | None


class Hello(NamedTuple):
    """How a machine begins a line.

    Attributes:
        sender: who it says it is.
        receiver: whom it wants.
        epoch: of its stay on the backbone.
        known: of the receiver's, as far as it knows.
    """

    sender: str
    receiver: str
    epoch: str
    known: str


def beat(epoch: str, version: int) -> bytes:
    """Return what a machine says once a second."""
    return _text({"epoch": epoch, "version": version})


def beat_of(payload: bytes) -> tuple[str, int]:
    """Read a beat; one that is none has no epoch."""
    return _stay_of(_object(payload))


def news(epoch: str, version: int, plugins: Sequence[tuple[str, str, str]], meeting: Meeting | None) -> bytes:
    """Return the frame that tells a machine what we have for it."""
    told: dict[str, Any] = {"epoch": epoch, "version": version, "plugins": plugins[:PLUGINS_LIMIT]}
    if meeting is not None:
        told["line"] = meeting.to_json()
    return wire.encode(Frame(Kind.WELCOME, payload=_text(told)))


def news_of(payload: bytes, machine: str) -> News:
    """Read what a machine, whose name is proven, has for us.

    Raises:
        BrokenFrame: it is no such list.
    """
    words = _object(payload)
    epoch, version = _stay_of(words)
    plugins = words.get("plugins")
    if not epoch or not isinstance(plugins, list) or len(plugins) > PLUGINS_LIMIT:
        raise BrokenFrame(Code.MALFORMED, "what it has is no list, or too long")
    found: dict[tuple[str, str], str] = {}
    for one in plugins:
        match one:
            case [str(namespace), str(plugin), str(state)] if len(state) <= STATE_LIMIT:
                found[namespace, plugin] = state
            case _:
                raise BrokenFrame(Code.MALFORMED, "what it has is no list of plugins")
    return News(epoch, version, found, meeting_of(words.get("line"), machine))


def hello(said: Hello) -> Frame:
    """Return the first frame of who dialled."""
    words = {"line": _LINE, "from": said.sender, "to": said.receiver, "stay": said.epoch, "yours": said.known}
    return Frame(Kind.HELLO, payload=_text(words))


def hello_of(frame: Frame) -> Hello:
    """Read the first frame of who dialled.

    Raises:
        BrokenFrame: it is none.
    """
    words = _object(frame.payload) if len(frame.payload) <= _HELLO_LIMIT else {}
    match words:
        case {"line": 1, "from": str(sender), "to": str(to), "stay": str(stay), "yours": str(yours)}:
            pass
        case _:
            raise BrokenFrame(Code.MALFORMED, "it does not introduce itself")
    if frame.kind != Kind.HELLO:
        raise BrokenFrame(Code.MALFORMED, "the first frame is no HELLO")
    return Hello(sender, to, stay, yours)


def event_frame(event: backbone.Event, payload: bytes) -> Frame | None:
    """Read the PUBLISH that an event from elsewhere holds; None when it holds anything else."""
    decoder = Decoder()
    try:
        frames = list(decoder.feed(payload))
    except BrokenFrame:
        return None
    if len(frames) != 1 or decoder.waiting or frames[0].kind != Kind.PUBLISH:
        return None
    frame = frames[0]
    if frame.name != event.subject or not wire.RESERVED_HEADERS.isdisjoint(frame.headers):
        return None
    return frame


def _stay_of(words: Mapping[str, Any]) -> tuple[str, int]:
    epoch, version = words.get("epoch"), words.get("version")
    known = isinstance(epoch, str) and 0 < len(epoch) <= _EPOCH_LIMIT and type(version) is int
    return (str(epoch), int(version or 0)) if known else ("", -1)


def _object(payload: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(words: Mapping[str, Any]) -> bytes:
    return json.dumps(words, separators=(",", ":")).encode()
