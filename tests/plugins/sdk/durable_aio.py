"""The same, for asyncio."""

import asyncio

from crucible_plugin.aio import Plugin


async def main() -> None:
    plugin = Plugin()
    running = asyncio.create_task(plugin.run())
    plugin.log.info("begun", nothing=await plugin.events.take("notes.*", timeout=0.5) is None)
    numbers = [await plugin.events.put("notes.saved", {"n": number}) for number in range(2)]
    numbers += [await plugin.events.put("notes.saved", b"\x00\x01", ident="once") for _ in range(2)]
    plugin.log.info("kept", numbers=numbers)
    first = await plugin.events.take("notes.*")
    plugin.log.info("taken", subject=first.subject, caller=first.caller, payload=first.payload)
    second = await plugin.events.take("notes.*", done=first)
    plugin.log.info("taken", subject=second.subject, caller=second.caller, payload=second.payload)
    last = await plugin.events.take("notes.*", done=second, raw=True)
    plugin.log.info("taken", subject=last.subject, caller=last.caller, payload=list(last.payload))
    await plugin.events.take("notes.*", done=last, timeout=0.5)

    async def follow() -> None:
        plugin.log.info("follows")
        async for event in plugin.events.follow("notes.*"):
            plugin.log.info("followed", caller=event.caller, payload=event.payload)

    following = asyncio.create_task(follow())
    await running
    following.cancel()


asyncio.run(main())
