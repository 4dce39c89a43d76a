"""What the plugins of a run are like: each kind has a part of the manifest that faults are to meet."""

from __future__ import annotations

from typing import Any

_RELOADS = """\
import signal
signal.signal(signal.SIGHUP, lambda *_: None)
while True: signal.pause()
"""
_ANSWERS = """\
import time
from crucible_plugin import Plugin
plugin = Plugin(drain=0.2)
@plugin.method()
def echo(request):
    time.sleep(0.02)
    return request.payload
@plugin.on_config
def changed(config): ...
plugin.run()
"""
_CALLS = """\
from crucible_plugin import BusError, Plugin
plugin = Plugin(drain=0.2)
@plugin.on_config
def changed(config): ...
with plugin:
    while not plugin.wait(seconds=0.05):
        try: plugin.call("p1.echo", {"n": 1}, timeout=1)
        except BusError: pass
"""


def _source(program: str) -> dict[str, Any]:
    return {"inline": {"main.py": program}}


PLAIN: dict[str, Any] = {}
FILE: dict[str, Any] = {"configDelivery": "file"}
SIGNAL: dict[str, Any] = {"configDelivery": "signal", "source": _source(_RELOADS)}
_ON_THE_BUS: dict[str, Any] = {
    "configDelivery": "bus",
    "lifecycle": {"drain": "1s"},
    "health": {"ready": {"ping": {}, "interval": "500ms"}},
}
ANSWERING = {**_ON_THE_BUS, "source": _source(_ANSWERS), "capabilities": {"bus": {}}}
"""The first Plugin of a place where there are any: who calls calls that one."""
HANDING = {**ANSWERING, "configDelivery": "restart", "update": {"strategy": "handover", "verify": "200ms"}}
CALLING = {**_ON_THE_BUS, "source": _source(_CALLS), "capabilities": {"bus": {"call": ["p1.echo"]}}}
