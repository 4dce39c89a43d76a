"""What the chart's tests share. Those that need a real cluster are there only where one is named."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from release import HELM, Release

# A disposable cluster, or an API server alone: CRUCIBLE_TEST_KUBECONFIG=file make test ARGS=tests/charts
collect_ignore = [] if os.environ.get("CRUCIBLE_TEST_KUBECONFIG") else ["test_cluster.py"]
# A scanner of three hundred megabytes, in an environment of its own: make scan
if not (Path(__file__).resolve().parents[2] / ".tools/checkov/.ready").exists():
    collect_ignore.append("test_scan.py")


@pytest.fixture(scope="session")
def release() -> Release:
    if not HELM.exists():
        pytest.skip("helm is missing: run .venv/bin/python scripts/tools")
    return Release()
