"""A program of ours that runs beside a cluster as a process, and what can be seen of it."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from ground import DEADLINE, LocalGround


class Beside:
    """One such program.

    Attributes:
        process: None until it was started.
    """

    def __init__(self, log: Path) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._log = log

    def run(self, local: LocalGround, *words: str) -> None:
        """Start it; do not wait for it."""
        argv = [str(Path(sys.executable).with_name("crucible")), *words]
        argv += ["--address", "127.0.0.1", "--kubeconfig", str(local.kubeconfig())]
        argv += ["--port", "0", "--health-port", "0", "--metrics-port", "0"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)

    def kill(self) -> None:
        """End it, as a node that fails does."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)

    def log(self) -> str:
        """Return what it said."""
        return self._log.read_text() if self._log.exists() else ""

    def port(self, name: str) -> int:
        """Return where it answers by a name, ``health`` or ``metrics`` say; 0 until it says so."""
        found = re.findall(rf"answers on .*'{name}': (\d+)", self.log())
        return int(found[-1]) if found else 0

    async def figures(self) -> str:
        """Return its metrics."""
        return await asyncio.to_thread(self._ask, "metrics", "metrics")

    def _ask(self, name: str, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port(name)}/{path}", timeout=DEADLINE) as answer:
            return str(answer.read().decode())


async def until_offered(local: LocalGround, plugin: str, control: str, service: str, port: int) -> Any:
    """Start an operator that is told of a Service which is not there; make it, and wait for who needs it.

    Returns:
        The rule of the plugin's NetworkPolicy that leads there.
    """
    named = f"default/{service}"
    local.start("two", f"--{control}", named)
    await local.until(lambda: f"--{control} {named}: there is no such Service" in local.log("two"))
    await serve(local, service, port, "there")
    held = {each["control"]: each for each in (await local.until_ready(plugin))["status"]["enforcement"]}
    assert held[control]["level"] == "enforced"
    assert named in held[control]["by"]
    policy = await local.client.get(local.path("networkpolicies", f"crucible-{plugin}"))
    (rule,) = policy["spec"]["egress"]
    assert rule["ports"] == [{"port": port, "protocol": "TCP"}]
    assert rule["to"][0]["podSelector"] == {"matchLabels": {"app": "there"}}
    return rule


async def serve(local: LocalGround, service: str, port: int, app: str) -> None:
    """Make a Service that leads to this host."""
    spec = {"clusterIP": "127.0.0.1", "ports": [{"port": port}], "selector": {"app": app}}
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": service}, "spec": spec}
    await local.client.create(local.path("services"), body)
