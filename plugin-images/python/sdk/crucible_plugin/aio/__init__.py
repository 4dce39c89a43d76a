"""The SDK for asyncio: the same names, with ``await``. Importing asyncio costs an idle plugin several MB.

import asyncio
from crucible_plugin.aio import Plugin

plugin = Plugin()

@plugin.method()
async def split(request):
return request.payload["text"].split()

asyncio.run(plugin.run())
"""

from crucible_plugin.aio.flow import Request, Stream
from crucible_plugin.aio.plugin import Plugin
from crucible_plugin.aio.store import Store
from crucible_plugin.calls import Message

__all__ = ["Message", "Plugin", "Request", "Store", "Stream"]
