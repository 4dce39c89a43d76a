"""Real sandboxes and a real proxy, in a network of the test's own, with another beside it for the outside.

What is in ``within/`` runs again here in a network namespace and a mount namespace of its own, where
``/etc/hosts`` names servers, and where nothing else is to be reached.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 900
HERE = Path(__file__).parent
HOSTS = """\
127.0.0.1 localhost
93.184.216.34 api.example.com
93.184.216.35 other.example.com
127.0.0.1 inside.example.com
169.254.169.254 metadata.example.com
2606:4700::9 own.example.com
93.184.216.51 own.example.com
93.184.216.52 second.example.com
5.5.5.5 routed.example.com
"""
NETWORK = (
    "ip link set lo up",
    "ip address add 93.184.216.51/28 dev lo",
    "ip address add 93.184.216.52/28 dev lo",
    "ip address add 2606:4700::9/128 dev lo",
    "ip route add local 5.5.0.0/16 dev lo",
)
"""Makes this network's host one with public addresses: of one interface, and by a route."""


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
            *NETWORK,
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
