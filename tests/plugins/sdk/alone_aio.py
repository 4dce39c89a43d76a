"""A plugin for asyncio that has no bus, and tries anyway."""

import asyncio

from crucible_plugin import Unavailable
from crucible_plugin.aio import Plugin


async def main() -> None:
    plugin = Plugin()
    try:
        await plugin.call("other.method")
    except Unavailable as error:
        plugin.log.info("refused", why=error.message)
    await plugin.run()


asyncio.run(main())
