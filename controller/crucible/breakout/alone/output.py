"""Prints without end."""

import os

print("allowed", flush=True)
block = (b"x" * 127 + b"\n") * 512
while True:
    os.write(1, block)
