"""The SDK for plugins in Python: methods, calls, messages, a store, live configuration, a clean end.

    from crucible_plugin import Plugin

    plugin = Plugin()

    @plugin.method()
    def split(request):
        return request.payload["text"].split()

    plugin.run()

It needs nothing but the standard library. ``crucible_plugin.aio`` is the same for asyncio.
"""

from crucible_plugin.calls import Message, Request, Stream
from crucible_plugin.errors import (
    BusError,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    Failed,
    Malformed,
    NoSuchMethod,
    NoSuchPlugin,
    NotFound,
    NotPermitted,
    Overloaded,
    StoreFull,
    TooLarge,
    Unavailable,
)
from crucible_plugin.logs import Log
from crucible_plugin.plugin import Plugin
from crucible_plugin.store import Change, Entry, Store

__all__ = [
    "BusError",
    "Cancelled",
    "Change",
    "Conflict",
    "DeadlineExceeded",
    "Entry",
    "Failed",
    "Log",
    "Malformed",
    "Message",
    "NoSuchMethod",
    "NoSuchPlugin",
    "NotFound",
    "NotPermitted",
    "Overloaded",
    "Plugin",
    "Request",
    "Store",
    "StoreFull",
    "Stream",
    "TooLarge",
    "Unavailable",
]
