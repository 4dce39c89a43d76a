"""Only collected in the network that ``test_real_sandboxes.py`` makes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "runtimes"))

collect_ignore_glob = [] if os.environ.get("CRUCIBLE_TEST_WITHIN") else ["test_*.py"]
