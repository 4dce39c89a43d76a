"""A plugin that keeps events for itself, and follows them."""

from crucible_plugin import Plugin

plugin = Plugin()
with plugin:
    plugin.log.info("begun", nothing=plugin.events.take("notes.*", timeout=0.5) is None)
    numbers = [plugin.events.put("notes.saved", {"n": number}) for number in range(2)]
    numbers += [plugin.events.put("notes.saved", b"\x00\x01", ident="once") for _ in range(2)]
    plugin.log.info("kept", numbers=numbers)
    first = plugin.events.take("notes.*")
    plugin.log.info("taken", subject=first.subject, caller=first.caller, payload=first.payload)
    second = plugin.events.take("notes.*", done=first)
    plugin.log.info("taken", subject=second.subject, caller=second.caller, payload=second.payload)
    last = plugin.events.take("notes.*", done=second, raw=True)
    plugin.log.info("taken", subject=last.subject, caller=last.caller, payload=list(last.payload))
    plugin.events.take("notes.*", done=last, timeout=0.5)
    plugin.log.info("follows")
    for event in plugin.events.follow("notes.*"):
        plugin.log.info("followed", caller=event.caller, payload=event.payload)
