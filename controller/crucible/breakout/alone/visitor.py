"""Reaches for another pod until it gets there: whoever is not held to anything has to be able to."""

import json
import os
import socket
import sys
import time

SECONDS = 60.0

with open(os.environ["CRUCIBLE_CONFIG"]) as file:
    host, port = json.load(file)["bait"]
end = time.monotonic() + SECONDS
while True:
    try:
        socket.create_connection((host, int(port)), 2).close()
    except OSError as error:
        if time.monotonic() > end:
            print(f"failed {error}", flush=True)
            sys.exit(1)
        time.sleep(0.5)
    else:
        print("reached", flush=True)
        break
