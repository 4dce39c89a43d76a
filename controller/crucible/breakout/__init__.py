"""The breakout suite: programs that try everything to get out of a sandbox, and the judgement of that.

``inside/`` and ``alone/`` are programs for a sandbox; nothing here imports them. ``crucible doctor`` runs
them on a user's host, the tests of the runtimes run the same.
"""
