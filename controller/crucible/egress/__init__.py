"""The egress proxy: the companion that lets plugins out, each to where it was granted and nowhere else.

Identity is the door a connection came through. ``heads.py``, ``bodies.py`` and ``socks.py`` read what
strangers send, purely; ``core/egress.py`` judges; ``dial.py`` resolves and connects; ``conversation.py``
does one connection; ``proxy.py`` keeps them all.
"""
