"""A plugin that has no bus, and tries anyway."""

from crucible_plugin import Plugin, Unavailable

plugin = Plugin()
plugin.start()  # from here on SIGTERM is a request
try:
    plugin.call("other.method")
except Unavailable as error:
    plugin.log.info("refused", why=error.message)
plugin.run()
