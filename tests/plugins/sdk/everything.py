"""A plugin that uses all of the SDK; tests call it from the other side."""

import sys
import threading

from crucible_plugin import BusError, Message, NotPermitted, Plugin, Request

plugin = Plugin(workers=4, drain=30)
heard: list[object] = []
opened = threading.Event()


@plugin.method()
def split(request: Request) -> object:
    return request.payload["text"].split()


@plugin.method(inline=True)
def quick(request: Request) -> object:
    return {"caller": request.caller, "method": request.method}


@plugin.method(name="echo-bytes", raw=True)
def echo(request: Request) -> bytes:
    return request.payload  # type: ignore[no-any-return]


@plugin.method()
def fail(request: Request) -> None:
    raise TypeError(f"no {request.payload}")


@plugin.method()
def relay(request: Request) -> object:
    """Call another plugin, and say what came of it."""
    try:
        return plugin.call(request.payload["to"], request.payload.get("with"))
    except BusError as error:
        plugin.log.info("no answer", code=error.code)
        return {"code": error.code, "retry": error.retry, "why": error.message}


@plugin.method()
def count(request: Request) -> object:
    yield from range(request.payload)
    return "done"


@plugin.method()
def add_up(request: Request) -> object:
    return sum(request.items())


@plugin.method()
def read_all(request: Request) -> object:
    with plugin.stream(request.payload["from"], request.payload["with"]) as stream:
        return [*stream, stream.result]


@plugin.method()
def what_was_heard(request: Request) -> object:
    del request
    return heard


@plugin.method()
def publish(request: Request) -> object:
    try:
        return plugin.publish(request.payload, {"note": 7}, confirm=True)
    except NotPermitted as error:
        return error.message


@plugin.method()
def store(request: Request) -> object:
    """Do to the store what is asked, and return what came of it."""
    verb, *arguments = request.payload
    try:
        result = getattr(plugin.store, verb)(*arguments)
        return list(result) if verb == "keys" else result
    except BusError as error:
        return {"code": error.code, "why": error.message}


@plugin.method()
def watch(request: Request) -> object:
    for change in plugin.store.watch(request.payload):
        yield [change.key, change.deleted, change.value, change.revision]


@plugin.method()
def config(request: Request) -> object:
    del request
    return plugin.config


@plugin.method()
def last_long(request: Request) -> str:
    """End only when somebody else lets it."""
    del request
    plugin.log.info("began")
    plugin.call("gate.open", timeout=60)
    return "ended"


@plugin.method()
def log(request: Request) -> None:
    plugin.log.info("a line", number=request.payload)


@plugin.subscribe("notes.*")
def saved(message: Message) -> None:
    heard.append([message.subject, message.caller, message.payload])


@plugin.on_config
def take(new: dict[str, object]) -> None:
    if "refuse" in new:
        raise ValueError("not this")


@plugin.on_stop
def say_goodbye() -> None:
    try:
        plugin.call("gate.goodbye")
    except BusError:
        print("nobody to say goodbye to", file=sys.stderr)


plugin.run()
plugin.log.info("left")
