"""Images on their way to nodes: by the program that each kind of cluster has for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from imagelib import nodes

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/images"
STUB = '#!/bin/sh\necho "$0 $@" >> "{log}"\n{rest}\n'


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / "log"


def stub(log: Path, name: str, rest: str = "exit 0") -> None:
    program = log.parent / name
    program.write_text(STUB.format(log=log, rest=rest))
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("kind", "kind load image-archive /a.tar --name kind"),
        ("kind:two", "kind load image-archive /a.tar --name two"),
        ("containerd", "ctr --namespace k8s.io images import /a.tar"),
    ],
)
def test_each_kind_of_node_is_handed_the_file(log: Path, where: str, words: str) -> None:
    stub(log, "kind")
    stub(log, "ctr")
    nodes.hand_over(where, Path("/a.tar"))
    assert log.read_text() == f"{log.parent}/{words}\n"


def test_what_the_program_says_of_its_failure_is_handed_on(log: Path) -> None:
    stub(log, "kind", "echo no nodes found for cluster >&2; exit 1")
    with pytest.raises(nodes.NotTaken, match=r"`kind load .*` failed: no nodes found for cluster"):
        nodes.hand_over("kind", Path("/a.tar"))


def test_a_program_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(nodes.NotTaken, match=r"no `ctr` on PATH"):
        nodes.hand_over("containerd", Path("/a.tar"))


@pytest.mark.parametrize("where", ["", "minikube", "kind:", "kind:--x y", "containerd:x"])
def test_what_is_no_kind_of_node_is_refused_before_anything_is_made(where: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), f"--into={where}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"images: --into {where!r}: say docker, kind, kind:CLUSTER or containerd\n"
