"""``crucible dev`` as an author lives with it: a real session, real saves, real plugins."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import engine as engines
import pytest
from onlooker import cmdline, everything, processes

from crucible.runtimes.docker.labels import CONTROL_PLANE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine import Engine

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="plugins start with every control enforced only where root runs the controller"
)

MANIFEST = """\
apiVersion: crucible.dev/v1alpha1
kind: Plugin
metadata: {name: app}
spec:
  version: 1.0.0
  type: python
  source: {path: .}
  entrypoint: [main.py]
  update: {strategy: rolling, verify: 700ms}
  recovery: {maxRestarts: 1, backoff: {initial: 10ms}}
"""
PROGRAM = "import time\nwhile True:\n    print('serving %s', flush=True)\n    time.sleep(0.05)\n"


class Author:
    """A folder, a session on it, and what that printed."""

    def __init__(self, folder: Path, output: Path, eventually: Callable[..., None]) -> None:
        self.folder = folder
        self._output = output
        self._eventually = eventually
        self.temporary = output.parent / "tmp"
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}

    def begin(self, *words: str) -> None:
        self.temporary.mkdir(exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                # As a script's shell has it for what it starts with &.
                [
                    "env",
                    "--ignore-signal=INT",
                    sys.executable,
                    "-m",
                    "crucible",
                    "dev",
                    str(self.folder),
                    *words,
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**kept, "TMPDIR": str(self.temporary), **self.environment},
            )

    def save(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def said(self) -> str:
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def reads(self, pattern: str, after: str = "") -> None:
        """Wait for a line that matches, behind what was said up to some point."""
        start = len(after)
        self._eventually(lambda: re.search(pattern, self.said()[start:], re.MULTILINE), self.said)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def processes(self) -> dict[int, str]:
        """Return the sandboxes and control planes that this session's folders are named in."""
        lines = {pid: cmdline(pid).replace(b"\0", b" ").decode(errors="replace") for pid in processes()}
        return {pid: line for pid, line in lines.items() if str(self.temporary) in line}


@pytest.fixture
def author(tmp_path: Path, eventually: Any) -> Iterator[Author]:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "plugin.yaml").write_text(MANIFEST)
    (folder / "main.py").write_text(PROGRAM % "one")
    made = Author(folder, tmp_path / "output", eventually)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()
    assert "Traceback (most recent call last)" not in made.said() or "/plugin/main.py" in made.said()


def test_a_save_takes_over_while_the_version_before_serves_and_nothing_is_left(author: Author) -> None:
    author.begin()
    author.reads(r"^ready: revision")
    (mark,) = [path.read_text().strip() for path in author.temporary.glob("crucible-dev-*/id")]
    author.save("main.py", PROGRAM % "two")
    author.reads(r"^reloaded: revision \w+ \(main.py\)")
    author.reads(r"^ready: revision", after=author.said())
    author.reads(r"serving two", after=author.said())
    lines = author.said().splitlines()
    first_of_two = lines.index("[app-0-2] serving two")
    last_of_one = max(index for index, line in enumerate(lines) if line == "[app-0-1] serving one")
    assert last_of_one > first_of_two, "the version before served no longer when the new one began"
    assert author.end() == 0
    assert author.said().endswith("gone: app is deleted, with all that was made for it\n")
    assert list(author.temporary.iterdir()) == []
    assert author.processes() == {}
    groups = [path.name for path in everything(Path("/sys/fs/cgroup"))]
    assert not [name for name in groups if name.startswith(f"crucible-{mark}")]


def test_a_save_takes_over_in_a_container_too(author: Author, engine: Engine) -> None:
    author.environment["DOCKER_HOST"] = engine.url
    author.begin("--runtime", "docker")
    author.reads(r"^ready: revision")
    (mark,) = [path.read_text().strip() for path in author.temporary.glob("crucible-dev-*/id")]
    author.save("main.py", PROGRAM % "two")
    author.reads(r"^reloaded: revision \w+ \(main.py\)")
    author.reads(r"^ready: revision", after=author.said())
    author.reads(r"^\[app-0-2\] serving two", after=author.said())
    lines = author.said().splitlines()
    first_of_two = lines.index("[app-0-2] serving two")
    last_of_one = max(index for index, line in enumerate(lines) if line == "[app-0-1] serving one")
    assert last_of_one > first_of_two, "the version before served no longer when the new one began"
    assert author.end() == 0
    assert list(author.temporary.iterdir()) == []
    with contextlib.closing(engines.client(engine.url)) as client:
        assert client.containers(all=True, filters={"label": f"{CONTROL_PLANE}={mark}"}) == []


def test_a_version_that_crashes_is_shown_and_the_one_before_serves_until_it_is_mended(author: Author) -> None:
    author.begin()
    author.reads(r"^ready: revision")
    author.save("main.py", "def (")
    author.reads(r"^crashed: app-0-2 exited with status 1; app-0-1 of the version before keeps serving")
    author.reads(r"^  \| SyntaxError")
    author.reads(r"^stalled: the new revision of replica 0 ended 2 times.*app-0-1 .* keeps serving")
    author.reads(r"^\[app-0-1\] serving one", after=author.said())
    author.save("main.py", PROGRAM % "mended")
    author.reads(r"^\[app-0-4\] serving mended")
    author.reads(r"^ready: revision", after=author.said())
    author.reads(r"^\[app-0-4\] serving mended", after=author.said())


def test_what_cannot_be_applied_is_named_and_what_ran_before_goes_on(author: Author) -> None:
    author.begin()
    author.reads(r"^ready: revision")

    def goes_on(refusal: str) -> None:
        author.reads(refusal)
        author.reads(r"^\[app-0-1\] serving one", after=author.said())

    author.save("plugin.yaml", MANIFEST + "  resorces: {}\n")
    goes_on(r"^refused: .*plugin.yaml:11: spec.resorces: unknown field: did you mean resources\?")
    author.save("plugin.yaml", MANIFEST + "  env: [\n")
    goes_on(r"^refused: .*plugin.yaml:\d+: ")
    author.save("plugin.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\n")
    goes_on(r"^refused: .*holds configmap/app: crucible dev runs one Plugin")
    author.save("plugin.yaml", MANIFEST.replace("name: app", "name: other"))
    goes_on(r"^refused: .*the plugin was plugin.crucible.dev/app: end this session to rename it")
    author.save("plugin.yaml", MANIFEST)
    (author.folder / "main.py").unlink()
    goes_on(r"^refused: .*spec.entrypoint\[0\]: main.py is not in the source")
    shutil.rmtree(author.folder)
    goes_on(r"^gone: .*app is gone: what ran before goes on")
    author.folder.mkdir()
    author.save("main.py", PROGRAM % "back")
    author.save("plugin.yaml", MANIFEST)
    author.reads(r"^\[app-0-2\] serving back")


def test_a_control_plane_that_runs_is_used_and_left_as_it_was(
    author: Author, crucible: Any, places: Any, manifest: Any
) -> None:
    author.begin("--state", str(places.root))
    author.reads(r"^ready: revision")
    assert [item["metadata"]["name"] for item in json.loads(crucible("get", "-o", "json").out)["items"]] == [
        "app"
    ]
    assert author.end(signal.SIGTERM) == 0
    assert json.loads(crucible("get", "-o", "json").out)["items"] == []
    assert crucible("apply", "-f", manifest(PROGRAM % "theirs", name="app"), "--wait").code == 0
    author.begin("--state", str(places.root))
    assert author.process is not None
    assert author.process.wait(60) == 4
    assert "did not make it" in author.said()
    assert json.loads(crucible("get", "-o", "json").out)["items"] != []


def test_nothing_is_left_either_when_the_control_plane_of_its_own_is_killed(author: Author) -> None:
    author.begin()
    author.reads(r"^ready: revision")
    (controller,) = [pid for pid, line in author.processes().items() if " crucible up " in line]
    os.kill(controller, signal.SIGKILL)
    assert author.process is not None
    assert author.process.wait(60) == 5
    assert list(author.temporary.iterdir()) == []
    assert author.processes() == {}


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        ("dev {here}/none", 3, "there is no such folder"),
        ("dev {here}", 3, "plugin.yaml: there is no such file: write the plugin's manifest"),
        ("dev {here} -f {here}/none.yaml", 3, "none.yaml: there is no such file"),
        ("dev {here} --state {here}/state", 4, "lies in it: keep the two apart"),
        ("dev {here}/app --debounce soon", 2, "--debounce: "),
        ("dev {here}/app -f {here}/away.yaml", 4, "where nothing is watched"),
        ("dev {here}/app -f {here}/wrong.yaml", 4, "wrong.yaml:5: spec.version: "),
    ],
)
def test_what_cannot_begin_says_why(author: Author, crucible: Any, words: str, code: int, why: str) -> None:
    here = author.folder.parent
    (here / "main.py").write_text("")
    (here / "away.yaml").write_text(MANIFEST)
    (here / "wrong.yaml").write_text(MANIFEST.replace("1.0.0", "one"))
    ended = crucible(*words.format(here=here).split())
    assert (ended.code, why in ended.err) == (code, True), ended.err
