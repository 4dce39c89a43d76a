"""Counts words: lets the tokenizer split texts, keeps its total in its store, and publishes it."""

import threading

from crucible_plugin import Plugin, Request

plugin = Plugin()
counting = threading.Lock()


@plugin.method()
def count(request: Request) -> dict[str, object]:
    """Return how many words a text has, and how many all texts so far."""
    words = plugin.call("tokenizer.split", {"text": request.payload["text"]}, timeout=5)
    with counting:
        total = plugin.store.get("total", 0) + len(words)
        plugin.store.put("total", total)
    plugin.publish("words.counted", {"words": len(words), "total": total})
    plugin.log.info("counted", words=len(words), total=total, caller=request.caller)
    return {"words": len(words), "different": len(set(words)), "total": total}


plugin.run()
