from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from crucible.control.apiserver import ApiServer, ServerSettings

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from commands import Tool  # noqa: E402 - see below
from probe import Probe, probing  # noqa: E402 - the folder is not a package, so its path comes first

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OTHER = Path("/usr/bin/kubectl")
TOOLS = HERE.parent.parent / ".tools" / "bin"


@pytest.fixture(scope="session")
def crd() -> dict[str, Any]:
    return dict(yaml.safe_load((HERE / "crd.yaml").read_text()))


@pytest.fixture
async def server(tmp_path: Path, crd: dict[str, Any]) -> AsyncIterator[ApiServer]:
    async with ApiServer(ServerSettings(state_dir=tmp_path / "state"), crds=[crd]) as running:
        yield running


@pytest.fixture
async def probe(server: ApiServer) -> AsyncIterator[Probe]:
    async with probing(server.url, server.ca, server.token) as ready:
        yield ready


@dataclass(frozen=True)
class Child:
    """A server in a process of its own, which a test may kill."""

    process: asyncio.subprocess.Process
    url: str
    state: Path

    @asynccontextmanager
    async def probe(self) -> AsyncIterator[Probe]:
        async with probing(self.url, self.state / "ca.crt", (self.state / "token").read_text()) as ready:
            yield ready

    async def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process.returncode is None:
            self.process.send_signal(how)
        await self.process.wait()


async def spawn(state: Path) -> Child:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "crucible.control.apiserver", "--state-dir", str(state)),
        *("--crd", str(HERE / "crd.yaml")),
        stdout=asyncio.subprocess.PIPE,
    )
    if process.stdout is None:
        raise RuntimeError("stdout was asked for")
    line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().split()
    return Child(process, line[1], state)


@pytest.fixture(scope="session")
def kubectl_path() -> Path:
    path = TOOLS / "kubectl"
    if not path.exists():
        pytest.skip("no kubectl: run scripts/tools")
    return path


@pytest.fixture(scope="session")
def helm_path() -> Path:
    path = TOOLS / "helm"
    if not path.exists():
        pytest.skip("no helm: run scripts/tools")
    return path


@pytest.fixture(params=["bundled", "installed"])
def kubectl(request: pytest.FixtureRequest, server: ApiServer, kubectl_path: Path, tmp_path: Path) -> Tool:
    if request.param == "installed" and not OTHER.exists():
        pytest.skip("this machine has no kubectl of its own")
    path = OTHER if request.param == "installed" else kubectl_path
    return Tool(path, server.kubeconfig, tmp_path)
