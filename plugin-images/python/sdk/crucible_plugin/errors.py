"""What can go wrong on the bus: one class for each code of the wire.

BusError                 any of them, and any code that a later release adds
  Malformed  UnsupportedVersion  NotPermitted  NoSuchPlugin  NoSuchMethod  TooLarge  NotFound  StoreFull
  Cancelled              nobody wants the answer any more
  Conflict               the store holds another revision: ``revision``
  Failed                 the method was tried and failed; the text is the other plugin's
  Unavailable  Overloaded  DeadlineExceeded
                         may work later: ``retry`` is true
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import ClassVar


class BusError(Exception):
    """The bus, or who was called, did not do it.

    Attributes:
        code: as the wire names it.
        message: why, in words.
        headers: what came with it.
        retry: whether the same may work a while later.
    """

    code = "Failed"
    retry = False
    _codes: ClassVar[dict[str, type[BusError]]] = {}

    def __init__(self, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers = dict(headers or {})

    def __init_subclass__(cls) -> None:
        """Let the code, which is the class's name, be found."""
        cls.code = cls.__name__
        cls._codes[cls.__name__] = cls

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Malformed(BusError):
    """These bytes are no frame, or a call's name or headers are wrong."""


class UnsupportedVersion(BusError):
    """Broker and plugin have no version of the wire in common."""


class NotPermitted(BusError):
    """The manifest does not grant it; the text names the line that would."""


class NoSuchPlugin(BusError):
    """There is no plugin of that name in the namespace."""


class NoSuchMethod(BusError):
    """It has no such method."""


class Unavailable(BusError):
    """It does not run, or went away during the call."""

    retry = True


class Overloaded(BusError):
    """Too much waits already: try again after a pause."""

    retry = True


class DeadlineExceeded(BusError):
    """The time is over; whether it was done is not known."""

    retry = True


class Cancelled(BusError):
    """The caller did not want it any more."""


class TooLarge(BusError):
    """A field is larger than its limit."""


class Conflict(BusError):
    """Another revision is there."""

    @property
    def revision(self) -> int:
        """The one that is."""
        return int(self.headers.get("revision", "0"))


class NotFound(BusError):
    """There is no such key."""


class StoreFull(BusError):
    """The store's size is used up."""


class Failed(BusError):
    """The method was tried and failed."""


def error_of(code: str, payload: bytes, headers: Mapping[str, str]) -> BusError:
    """Return the exception for an ERROR frame."""
    kind = BusError._codes.get(code)  # noqa: SLF001 - its own module
    message = payload.decode(errors="replace")
    if kind is not None:
        return kind(message, headers)
    error = BusError(message, headers)
    error.code = code
    return error
