"""The egress proxy: lets plugins out, each to where it was granted and nowhere else.

On one machine it is a companion, and identity is the door a connection came through; on a cluster it is
``crucible egress``, and identity is the address of a pod. ``heads.py``, ``bodies.py`` and ``socks.py`` read
what strangers send, purely; ``core/egress.py`` judges; ``dial.py`` resolves and connects;
``conversation.py`` does one connection; ``proxy.py`` keeps all of one machine, ``gate.py`` all of a cluster.
"""
