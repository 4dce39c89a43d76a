"""Real sandboxes and a real proxy, in a network of the test's own: its loopback holds public addresses.

What is in ``within/`` runs again here in a network namespace and a mount namespace of its own, where
``/etc/hosts`` names servers, and where nothing but loopback is to be reached.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 300
HERE = Path(__file__).parent
HOSTS = """\
127.0.0.1 localhost
93.184.216.34 api.example.com
93.184.216.35 other.example.com
127.0.0.1 inside.example.com
169.254.169.254 metadata.example.com
"""
ADDRESSES = ("93.184.216.34/32", "93.184.216.35/32", "169.254.169.254/32", "10.9.8.7/32")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network to try it in: run as root")
@pytest.mark.parametrize("name", [path.name for path in sorted((HERE / "within").glob("test_*.py"))])
def test_within_a_network_of_its_own(name: str, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(HOSTS)
    tests = f"{sys.executable} -m pytest -q -x -p no:cacheprovider --basetemp={tmp_path}/w"
    script = " && ".join(
        [
            "mount --make-rprivate /",
            f"mount --bind {hosts} /etc/hosts",
            "ip link set lo up",
            *(f"ip address add {address} dev lo" for address in ADDRESSES),
            f"exec {tests} {HERE}/within/{name}",
        ]
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", script],
        cwd=HERE.parents[1],
        env=env | {"CRUCIBLE_TEST_WITHIN": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
