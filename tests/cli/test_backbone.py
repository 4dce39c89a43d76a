"""``crucible up --backbone``: the server comes, is found again, and goes; commands say how it is."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from backboned import free_port
from onlooker import cmdline

from crucible.backbone import server
from crucible.backbone.server import ServerPlace
from crucible.backbone.settings import read_pass
from crucible.bootstrap import control_plane_id
from crucible.bus import nats
from crucible.bus.credentials import context_of
from crucible.cli import exits
from crucible.errors import Unavailable
from crucible.settings import Places

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = (sys.executable, "-m", "crucible")


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    """A state folder whose control plane has the server of a backbone; everything is ended afterwards."""
    text = f"machine: alpha\nlisten: 127.0.0.1:{free_port()}\nshare: {{default: {{machines: ['*']}}}}\n"
    (tmp_path / "backbone.yaml").write_text(text)
    made = Places(tmp_path / "state")
    yield made
    pid = pid_of(made)
    ended = run("down", "--state", str(made.root), "--purge", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert not made.root.exists()
    assert pid is not None
    assert not cmdline(pid)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"KUBECONFIG", "CRUCIBLE_STATE"}}
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False, env=kept)


def start(places: Places, *words: str) -> subprocess.Popen[bytes]:
    with (places.root.parent / "up.log").open("ab") as log:
        return subprocess.Popen([*COMMAND, "up", "--state", str(places.root), *words], stdout=log, stderr=log)


def pid_of(places: Places) -> int | None:
    """Return the server's process; None where none runs."""
    if not (places.root / "id").exists():
        return None
    held = server.reach(ServerPlace(places.backbone, control_plane_id(places.root / "id")))
    if held is None:
        return None
    os.close(held)
    return int((places.backbone / "pid").read_text())


def status(places: Places) -> dict[str, Any]:
    done = run("backbone", "status", "--state", str(places.root), "-o", "json")
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {"problem": done.stderr}


def joined(places: Places) -> bool:
    return status(places).get("problem") == "" and status(places).get("machine") == "alpha"


def test_the_server_is_kept_found_again_restarted_and_ended(places: Places, eventually: Any) -> None:
    settings = str(places.root.parent / "backbone.yaml")
    log = places.root.parent / "up.log"
    first = start(places, "--backbone", settings)
    eventually(lambda: joined(places), lambda: (status(places), log.read_text()))
    before = pid_of(places)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    eventually(lambda: pid_of(places) not in {None, before}, log.read_text)
    after = pid_of(places)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 0
    assert pid_of(places) == after  # it outlives the controller
    second = start(places, "--backbone", settings)
    eventually(lambda: "was found serving" in log.read_text(), log.read_text)
    eventually(lambda: joined(places), lambda: (status(places), log.read_text()))
    assert pid_of(places) == after
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 0
    assert "Traceback" not in log.read_text()


def test_a_backup_brings_the_authority_back_and_passes_open_what_they_opened(
    places: Places, eventually: Any
) -> None:
    folder = places.root.parent
    settings, copy, log = folder / "backbone.yaml", folder / "copy.backup", folder / "up.log"
    here = ("--state", str(places.root))
    first = start(places, "--backbone", str(settings))
    eventually(lambda: joined(places), lambda: (status(places), log.read_text()))
    told = run("backbone", "invite", "beta", "--namespace", "default", "--file", str(folder / "p"), *here)
    assert told.returncode == 0, told.stderr
    made = run("backup", str(copy), *here)
    assert "the authority of the backbone" in made.stdout, made.stderr
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 0
    assert run("down", *here, "--purge", "--yes").returncode == 0
    assert not places.root.exists()
    assert run("restore", str(copy), *here).returncode == 0
    second = start(places, "--backbone", str(settings))
    eventually(lambda: joined(places), lambda: (status(places), log.read_text()))
    eventually(lambda: asyncio.run(is_let_in(folder / "p")), log.read_text)
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 0


async def is_let_in(file: Path) -> bool:
    """Say whether the server lets a machine in by its pass."""
    joining = read_pass(file)
    try:
        made = await nats.connect(
            joining.host, joining.port, context_of(joining), joining.machine, lambda _: None
        )
    except Unavailable:
        return False
    made.close()
    return True


def test_a_file_that_is_wrong_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "backbone.yaml").write_text("machine: alpha\n")
    done = run("up", "--state", str(tmp_path / "state"), "--backbone", str(tmp_path / "backbone.yaml"))
    assert done.returncode == exits.REFUSED
    assert "exactly one of listen" in done.stderr
    assert not (tmp_path / "state").exists()
