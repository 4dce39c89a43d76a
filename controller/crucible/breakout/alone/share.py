"""Takes processor time without end, in one process more than there are processors; says its share."""

import os
import resource
import signal
import time

SECONDS = 3.0

print("allowed", flush=True)
began = time.monotonic()
children = []
for _ in range(os.cpu_count() or 1):
    child = os.fork()
    if child == 0:
        while True:
            pass
    children.append(child)
while time.monotonic() - began < SECONDS:
    pass
took = time.monotonic() - began
for child in children:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(f"share {sum(one.ru_utime + one.ru_stime for one in used) / took:.3f}", flush=True)
