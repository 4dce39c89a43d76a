"""Splits text into words, for whoever may call it."""

import re

from crucible_plugin import Plugin, Request

plugin = Plugin()


@plugin.method(inline=True)
def split(request: Request) -> list[str]:
    """Return the words of a text, in lower case."""
    return re.findall(r"[a-z']+", str(request.payload["text"]).lower())


plugin.run()
