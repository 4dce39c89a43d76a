"""Companions: programs of ours beside the controller that serve what is behind the doors.

A companion is a process of its own, so that a restart of the controller cuts nothing that goes through it.
The controller starts it when an instance has a door that it serves, finds it again after a restart, starts it
anew when it dies, and ends it when nothing needs it. Over a private socket it hands the companion the
listening socket of each door, says who is behind it and what that one is granted; a companion keeps nothing
else, so one that was started anew is told everything again.

``companion.py`` is the controller's end, ``program.py`` the companion's; ``link.py`` is what they speak.
"""
