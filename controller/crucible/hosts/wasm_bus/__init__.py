"""The bus, as functions that a WebAssembly module imports from ``crucible``.

A module has one thread, so there is one thing at a time: it asks and waits, or takes what comes next. While
it waits for anything here, calls, messages and changes of its store that come in line up for ``bus_next``,
and pings are answered. What it may do is judged by the broker alone.

Stands by itself beside the host, in the same Python: the standard library, ``wasmtime`` and nothing besides.
"""

from .functions import define, own

__all__ = ["define", "own"]
