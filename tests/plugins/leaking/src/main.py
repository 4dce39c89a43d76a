"""Keeps a few more MiB every moment, until the kernel says no."""

import json
import os
import time
from pathlib import Path

CONFIG = json.loads(Path(os.environ["CRUCIBLE_CONFIG"]).read_text(encoding="utf-8"))


def main() -> None:
    """Leak."""
    kept: list[bytes] = []
    while True:
        kept.append(os.urandom(1024) * (CONFIG["step"] * 1024))
        print(f"holding {len(kept) * CONFIG['step']} MiB", flush=True)
        time.sleep(CONFIG["pause"])


if __name__ == "__main__":
    main()
