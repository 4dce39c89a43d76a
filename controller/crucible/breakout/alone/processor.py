"""Takes processor time without end, in as many processes as there are processors and one more."""

import os
import time

SECONDS = 2.0

print("allowed", flush=True)
for _ in range(os.cpu_count() or 1):
    if os.fork() == 0:
        break
while time.process_time() < SECONDS:
    pass
print("took what it wanted", flush=True)
