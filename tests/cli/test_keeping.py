"""A folder kept applied, and what is kept of a control plane: on real ones, as people do it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from crucible.bus.shelf import Shelf
from crucible.model.bus import Grants, Member

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {k: '%s'}\n"
PLUGIN = """\
apiVersion: crucible.dev/v1alpha1
kind: Plugin
metadata: {name: app}
spec:
  version: 1.0.0
  type: python
  source: {path: .}
  entrypoint: [main.py]
"""
PROGRAM = "import time\nprint('version %d', flush=True)\nwhile True: time.sleep(1)\n"


@pytest.fixture
def up(tmp_path: Path, eventually: Any) -> Iterator[Callable[..., Path]]:
    """Start control planes of their own; return each one's log, and stop it when the test ends."""
    running: list[tuple[subprocess.Popen[bytes], Path]] = []

    def begin(*words: str) -> Path:
        log = tmp_path / f"up-{len(running)}.log"
        with log.open("w") as output:
            command = [sys.executable, "-m", "crucible", "up", "--state", str(tmp_path / "state"), *words]
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        running.append((process, log))
        eventually(lambda: "is ready" in log.read_text() or process.poll() is not None, log.read_text)
        assert process.poll() is None, log.read_text()
        return log

    def end() -> None:
        for process, log in running:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()
            assert "Traceback" not in log.read_text()
        running.clear()

    begin.end = end  # type: ignore[attr-defined]
    yield begin
    end()


def test_a_folder_is_kept_applied(
    crucible: Any, up: Any, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    folder = tmp_path / "m"
    (folder / "app").mkdir(parents=True)
    (folder / "app/plugin.yaml").write_text(PLUGIN)
    (folder / "app/main.py").write_text(PROGRAM % 1)
    (folder / "c.yaml").write_text(CONFIG % ("c", 1) + "---\n" + CONFIG % ("d", 1))
    log = up("--manifests", str(folder))
    here = ("--state", str(tmp_path / "state"))

    def says(words: str) -> None:
        eventually(lambda: words in log.read_text(), log.read_text)

    def wrote(words: str) -> None:
        eventually(lambda: words in crucible("logs", "app", *here).out, log.read_text)

    wrote("version 1")
    (folder / "app/main.py").write_text(PROGRAM % 2)
    wrote("version 2")
    (folder / "app/plugin.yaml").write_text(PLUGIN + "  resorces: {}\n")
    says(f"refused: {folder}/app/plugin.yaml:9: spec.resorces: unknown field: did you mean resources?")
    (folder / "c.yaml").write_text(CONFIG % ("c", 1))
    says("c.yaml: configmap/d removed")
    assert "app" in crucible("get", *here).out
    assert crucible("delete", "app", *here).code == 0
    (folder / "app/plugin.yaml").write_text(PLUGIN)
    eventually(lambda: "Running" in crucible("get", *here).out, log.read_text)
    (folder / "app/plugin.yaml").unlink()
    says("plugin.crucible.dev/app removed")
    eventually(lambda: "app" not in crucible("get", *here).out, log.read_text)
    up.end()
    log = up("--manifests", str(folder))
    assert "created" not in log.read_text()


def test_a_folder_that_is_not_there_is_said_at_once(crucible: Any, tmp_path: Path) -> None:
    ended = crucible("up", "--state", str(tmp_path / "s"), "--manifests", str(tmp_path / "none"))
    assert ended.code == 3
    assert "there is no such folder" in ended.err


def test_a_folder_with_the_state_in_it_is_refused(crucible: Any, tmp_path: Path) -> None:
    ended = crucible("up", "--state", str(tmp_path / "s"), "--manifests", str(tmp_path))
    assert (ended.code, "keep the two apart" in ended.err) == (4, True)
    assert not (tmp_path / "s").exists()


def test_what_is_exported_is_applied_again(crucible: Any, manifest: Any, tmp_path: Path) -> None:
    program = manifest("import time\ntime.sleep(600)\n", config={"text": "1e3", "word": "on"})
    assert crucible("apply", "-f", program).code == 0
    crucible("apply", "-f", "-", stdin="apiVersion: v1\nkind: Namespace\nmetadata: {name: export-me}\n")
    everything = crucible("export")
    assert everything.code == 0
    kinds = [each["kind"] for each in yaml.safe_load_all(everything.out)]
    assert "Namespace" in kinds
    assert kinds[-1] == "Plugin"
    unchanged = crucible("apply", "-f", "-", stdin=everything.out)
    assert (unchanged.code, "created" in unchanged.out + unchanged.err) == (0, False)
    assert crucible("export", "-n", "default", "-o", str(tmp_path / "out")).code == 0
    assert "plugin.default.demo.yaml" in {path.name for path in (tmp_path / "out").iterdir()}
    assert crucible("export", "-o", str(tmp_path / "out")).code == 4
    crucible("delete", "demo")
    assert "plugin.crucible.dev/demo created" in crucible("apply", "-f", str(tmp_path / "out"), "--wait").out


def test_a_backup_of_a_running_control_plane_brings_it_back(crucible: Any, up: Any, tmp_path: Path) -> None:
    here = ("--state", str(tmp_path / "state"))
    copy = str(tmp_path / "copy.db")
    up("--secrets-key", str(tmp_path / "key"))
    crucible("apply", "-f", "-", *here, stdin=CONFIG % ("kept", 1))
    assert crucible("backup", copy, *here).code == 0
    crucible("apply", "-f", "-", *here, stdin=CONFIG % ("late", 1))
    running = crucible("restore", copy, "--force", *here)
    assert (running.code, "is in use by process" in running.err) == (1, True)
    up.end()
    assert crucible("restore", copy, *here).code == 4
    assert crucible("restore", copy, "--force", *here).code == 0
    up("--secrets-key", str(tmp_path / "key"))
    exported = crucible("export", *here).out
    assert ("name: kept" in exported, "name: late" in exported) == (True, False)


@pytest.mark.skipif(
    os.geteuid() != 0, reason="plugins start with every control enforced only where root runs"
)
def test_what_is_in_stores_comes_back_with_a_backup(
    crucible: Any, up: Any, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    here, copy, app = ("--state", str(tmp_path / "state")), str(tmp_path / "copy"), tmp_path / "app"
    app.mkdir()
    (app / "main.py").write_text(PROGRAM % 1)
    granted = "  resources: {memory: 32Mi}\n  capabilities: {bus: {}, store: {size: 1Mi}}\n"
    (app / "plugin.yaml").write_text(PLUGIN + granted)
    log = up()
    try:
        assert crucible("apply", "-f", str(app / "plugin.yaml"), "--wait", *here).code == 0, log.read_text()
        eventually(lambda: crucible("store", "put", "app", "kept", "1", *here).code == 0, log.read_text)
        assert "1 stores" in crucible("backup", copy, *here).out
        assert crucible("store", "put", "app", "kept", "2", *here).code == 0
        uid = json.loads(crucible("get", "app", "-o", "json", *here).out)["metadata"]["uid"]
        up.end()
        running = crucible("restore", copy, "--force", *here)
        assert (running.code, "the broker runs still" in running.err) == (1, True), running
    finally:
        up.end()
        assert crucible("down", *here).code == 0
    assert crucible("restore", copy, "--force", *here).code == 0
    folder = os.open(tmp_path / "state/bus/data", os.O_RDONLY | os.O_DIRECTORY)
    shelf = Shelf(folder)
    assert shelf.open(Member("default", "app", uid, Grants(store=2**20))).get("kept") == (1, b"1")
    shelf.close()
    os.close(folder)
