"""Makes files without content, which take no room of the disk's, only the kernel's memory."""

from pathlib import Path

for number in range(64):
    Path(f"/tmp/few-{number}").touch()
print("allowed", flush=True)
for number in range(200_000):
    try:
        Path(f"/tmp/many-{number}").touch()
    except OSError as error:
        print(f"refused after {number}: {error.strerror}", flush=True)
        break
