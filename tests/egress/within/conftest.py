"""Only collected in the network that ``test_real_sandboxes.py`` makes; makes the outside beside it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from outside import Outside

if TYPE_CHECKING:
    from collections.abc import Iterator

sys.path.insert(0, str(Path(__file__).parents[2] / "runtimes"))

collect_ignore_glob = [] if os.environ.get("CRUCIBLE_TEST_WITHIN") else ["test_*.py"]


@pytest.fixture(scope="session")
def outside() -> Iterator[Outside]:
    found = Outside()
    yield found
    found.close()
