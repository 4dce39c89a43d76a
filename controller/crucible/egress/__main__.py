"""Runs the egress proxy as a companion."""

from __future__ import annotations

import threading

from crucible.companions.program import run
from crucible.egress.proxy import Proxy

_STACK = 1 << 19

if __name__ == "__main__":
    threading.stack_size(_STACK)  # names are resolved in threads, and their stacks count as memory
    run("egress", Proxy)
