"""``python -m crucible``: the command line, where the installed script is not on the path."""

from crucible.cli.app import main

main()
