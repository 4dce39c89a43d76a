"""Fills its scratch space far beyond what it may, and keeps it so: a kubelet ends a pod that does."""

import os
import signal

MIB = 1 << 20

with open("/tmp/some", "wb") as file:
    file.write(bytes(MIB // 2))
print("allowed", flush=True)
with open("/tmp/filled", "wb") as file:
    for _ in range(64):
        file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())
print("wrote 64 MiB", flush=True)
signal.pause()
