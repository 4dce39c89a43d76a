"""The broker's program."""

import uvloop

from crucible.bus.service import BusService
from crucible.companions.program import run

if __name__ == "__main__":
    run("bus", BusService, urgent=True, loop=uvloop.new_event_loop)
