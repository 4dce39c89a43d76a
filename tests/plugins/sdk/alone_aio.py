"""A plugin for asyncio that has no bus, and tries anyway."""

import asyncio

from crucible_plugin import Unavailable
from crucible_plugin.aio import Plugin


async def main() -> None:
    plugin = Plugin()
    running = asyncio.create_task(plugin.run())
    await asyncio.sleep(0)  # from here on SIGTERM is a request
    try:
        await plugin.call("other.method")
    except Unavailable as error:
        plugin.log.info("refused", why=error.message)
    await running


asyncio.run(main())
