"""Programs that run a plugin's code inside its sandbox. Nothing of the controller imports them.

Each stands by itself, in one file or with a package beside it, and is copied into the root file system of its
plugin type.
"""
