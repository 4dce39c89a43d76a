"""A plugin that uses all of the SDK for asyncio; tests call it from the other side."""

import asyncio

from crucible_plugin import BusError, NotPermitted
from crucible_plugin.aio import Message, Plugin, Request

plugin = Plugin(drain=30)
heard: list[object] = []


@plugin.method()
async def split(request: Request) -> object:
    return request.payload["text"].split()


@plugin.method()
async def quick(request: Request) -> object:
    return {"caller": request.caller, "method": request.method}


@plugin.method(name="echo-bytes", raw=True)
async def echo(request: Request) -> bytes:
    return request.payload  # type: ignore[no-any-return]


@plugin.method()
async def fail(request: Request) -> None:
    raise TypeError(f"no {request.payload}")


@plugin.method()
async def relay(request: Request) -> object:
    """Call another plugin, and say what came of it."""
    try:
        return await plugin.call(request.payload["to"], request.payload.get("with"))
    except asyncio.CancelledError:
        plugin.log.info("no answer", code="Cancelled")
        raise
    except BusError as error:
        plugin.log.info("no answer", code=error.code)
        return {"code": error.code, "retry": error.retry, "why": error.message}


@plugin.method()
async def count(request: Request) -> object:
    for number in range(request.payload):
        yield number


@plugin.method()
async def add_up(request: Request) -> object:
    return sum([item async for item in request.items()])


@plugin.method()
async def read_all(request: Request) -> object:
    async with await plugin.stream(request.payload["from"], request.payload["with"]) as stream:
        return [*[item async for item in stream], stream.result]


@plugin.method()
async def what_was_heard(request: Request) -> object:
    del request
    return heard


@plugin.method()
async def publish(request: Request) -> object:
    try:
        return await plugin.publish(request.payload, {"note": 7}, confirm=True)
    except NotPermitted as error:
        return error.message


@plugin.method()
async def store(request: Request) -> object:
    """Do to the store what is asked, and return what came of it."""
    verb, *arguments = request.payload
    try:
        if verb == "keys":
            return [key async for key in plugin.store.keys(*arguments)]
        return await getattr(plugin.store, verb)(*arguments)
    except BusError as error:
        return {"code": error.code, "why": error.message}


@plugin.method()
async def watch(request: Request) -> object:
    async for change in plugin.store.watch(request.payload):
        yield [change.key, change.deleted, change.value, change.revision]


@plugin.method()
async def config(request: Request) -> object:
    del request
    return plugin.config


@plugin.method()
async def last_long(request: Request) -> str:
    """End only when somebody else lets it."""
    del request
    plugin.log.info("began")
    await plugin.call("gate.open", timeout=60)
    return "ended"


@plugin.method()
async def log(request: Request) -> None:
    plugin.log.info("a line", number=request.payload)


@plugin.subscribe("notes.*")
async def saved(message: Message) -> None:
    heard.append([message.subject, message.caller, message.payload])


@plugin.on_config
async def take(new: dict[str, object]) -> None:
    if "refuse" in new:
        raise ValueError("not this")


@plugin.on_stop
async def say_goodbye() -> None:
    try:
        await plugin.call("gate.goodbye")
    except BusError:
        plugin.log.warning("nobody to say goodbye to")


asyncio.run(plugin.run())
plugin.log.info("left")
