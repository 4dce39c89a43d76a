"""Starts the backbone's server, enclosed. A program of its own: what it gives up is gone."""

from __future__ import annotations

import argparse
import os
import traceback

from crucible.companions.enclose import become
from crucible.companions.program import hasten

MEMORY = "512MiB"
"""Beyond which the server tries to get by with less."""


def main() -> None:
    """Write down the process id of the server-to-be, and become it in a session of its own."""
    parser = argparse.ArgumentParser(prog="crucible-backbone")
    parser.add_argument("mark", help="shows whose it is")
    parser.add_argument("--program", type=int, required=True, help="descriptor of the server's file")
    parser.add_argument("--folder", type=int, required=True, help="descriptor of its folder")
    parser.add_argument("--pid", type=int, required=True, help="descriptor of the file for its process id")
    parser.add_argument("--log", type=int, required=True, help="descriptor of the file for its log")
    parser.add_argument("--port", type=int, required=True, help="at which it listens")
    parser.add_argument("--settings", required=True, help="file in the folder")
    parser.add_argument("--uid", type=int, help="user and group to become")
    options = parser.parse_args()
    pid = os.fork()
    if pid:
        os.write(options.pid, b"%d\n" % pid)
        os._exit(0)
    try:
        os.setsid()
        hasten()
        os.dup2(options.log, 1)
        os.dup2(options.log, 2)
        for one in (options.program, options.folder, options.pid, options.log):
            os.set_inheritable(one, False)
        arguments = [options.mark, "-c", options.settings]
        environment = {"GOMEMLIMIT": MEMORY, "GOTRACEBACK": "none"}
        become(options.uid, options.folder, options.program, options.port, arguments, environment)
    except OSError:
        traceback.print_exc()
    os._exit(1)


if __name__ == "__main__":
    main()
