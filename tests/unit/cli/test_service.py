"""``crucible service`` before a systemd that only writes down what it is asked."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer

from crucible.cli import service as command
from crucible.cli.exits import Failed
from crucible.cli.options import Data
from crucible.errors import InvalidInput, NotFound, Unsupported
from crucible.service import Service

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Init:
    """What was asked, and what is answered."""

    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def run(self, words: Sequence[str]) -> tuple[int, str]:
        self.asked.append(" ".join(words))
        return next((answer for key, answer in self.answers.items() if key in self.asked[-1]), (0, ""))


@pytest.fixture
def init() -> Init:
    return Init()


def systemd(tmp_path: Path, init: Init, *, user: bool = False) -> command.Systemd:
    return command.Systemd(tmp_path / "units", user, init.run, booted=True)


def service(tmp_path: Path) -> Service:
    return Service("crucible", "system", ("crucible",), tmp_path / "state")


def test_installing_writes_the_unit_starts_it_and_says_so(
    tmp_path: Path, init: Init, capsys: pytest.CaptureFixture[str]
) -> None:
    command.install(service(tmp_path), systemd(tmp_path, init))
    path = tmp_path / "units/crucible.service"
    assert "KillMode=process" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644
    assert init.asked == [
        "systemctl daemon-reload",
        "systemctl enable crucible.service",
        "systemctl restart crucible.service",
    ]
    assert f"{path} written" in capsys.readouterr().out
    command.install(service(tmp_path), systemd(tmp_path, init))
    assert "unchanged" in capsys.readouterr().out


def test_a_users_service_is_told_to_go_on_after_logging_out(
    tmp_path: Path, init: Init, capsys: pytest.CaptureFixture[str]
) -> None:
    init.answers["enable-linger"] = (1, "not allowed")
    command.install(service(tmp_path), systemd(tmp_path, init, user=True))
    assert init.asked[0] == "systemctl --user daemon-reload"
    assert init.asked[-1].startswith("loginctl enable-linger ")
    assert "it ends when you log out" in capsys.readouterr().err


def test_a_unit_that_is_someone_elses_is_left_alone(tmp_path: Path, init: Init) -> None:
    path = tmp_path / "units/crucible.service"
    path.parent.mkdir()
    path.write_text("[Service]\nExecStart=/bin/true\n")
    with pytest.raises(InvalidInput, match="choose another --name"):
        command.install(service(tmp_path), systemd(tmp_path, init))
    assert init.asked == []


def test_what_systemd_refuses_is_said(tmp_path: Path, init: Init) -> None:
    init.answers["restart"] = (1, "Job failed.\n")
    with pytest.raises(Failed, match=r"systemctl restart crucible.service failed: Job failed."):
        command.install(service(tmp_path), systemd(tmp_path, init))


def test_the_status_is_facts_and_an_exit_code(
    tmp_path: Path, init: Init, capsys: pytest.CaptureFixture[str]
) -> None:
    init.answers = {"is-active": (3, "inactive\n"), "is-enabled": (0, "enabled\n")}
    with pytest.raises(typer.Exit) as ended:
        command.status(service(tmp_path), systemd(tmp_path, init), Data.JSON)
    assert ended.value.exit_code == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["installed"], facts["enabled"], facts["active"]) == (False, "enabled", "inactive")
    init.answers["is-active"] = (0, "active\n")
    command.status(service(tmp_path), systemd(tmp_path, init), Data.TEXT)
    assert "active     active" in capsys.readouterr().out


def test_uninstalling_stops_it_and_leaves_plugins(
    tmp_path: Path, init: Init, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotFound):
        command.uninstall(service(tmp_path), systemd(tmp_path, init))
    command.install(service(tmp_path), systemd(tmp_path, init))
    init.asked.clear()
    command.uninstall(service(tmp_path), systemd(tmp_path, init))
    assert init.asked == ["systemctl disable --now crucible.service", "systemctl daemon-reload"]
    assert not (tmp_path / "units/crucible.service").exists()
    assert "crucible down" in capsys.readouterr().out


def test_without_systemd_it_is_refused_and_the_unit_can_still_be_printed(
    tmp_path: Path, init: Init, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = command.Systemd(tmp_path, user=False, run=init.run, booted=False)
    monkeypatch.setattr(command, "here", lambda: nowhere)
    with pytest.raises(Unsupported, match="systemd does not run here"):
        command.command(command.Action.INSTALL, state=tmp_path)
    command.command(command.Action.INSTALL, state=tmp_path, show=True)
    assert "Restart=always" in capsys.readouterr().out
    assert init.asked == []


def test_volumes_are_checked_now_and_offered_at_every_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path.resolve() / "notes"
    notes.mkdir()
    words = [f"notes={notes}:ro"]
    command.command(command.Action.INSTALL, state=tmp_path / "state", volume=words, show=True)
    assert f"--volume notes={notes}:ro" in capsys.readouterr().out.replace('"', "")
    with pytest.raises(InvalidInput, match="is no folder here"):
        command.command(command.Action.INSTALL, state=tmp_path, volume=["notes=/nowhere"], show=True)


def test_a_name_that_could_lead_elsewhere_is_refused() -> None:
    with pytest.raises(InvalidInput, match="letters"):
        command.command(command.Action.STATUS, name="../sshd")


def test_what_others_wrote_is_neither_replaced_nor_removed(tmp_path: Path, init: Init) -> None:
    units = tmp_path / "units"
    units.mkdir()
    path = units / "crucible.service"
    ours = tmp_path / "ours.service"
    ours.write_text("# Written by `crucible service install`")
    for make in (
        lambda: path.write_text("[Unit]\n"),
        lambda: path.symlink_to("/dev/null"),  # as `systemctl mask` does
        lambda: path.symlink_to(ours),  # as an alias is
    ):
        make()
        before = path.readlink() if path.is_symlink() else path.read_text()
        for verb in (command.install, command.uninstall):
            with pytest.raises(InvalidInput):
                verb(service(tmp_path), systemd(tmp_path, init))
        assert (path.readlink() if path.is_symlink() else path.read_text()) == before
        path.unlink()
    assert init.asked == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away: run as root")
def test_a_program_that_others_can_change_is_told_of(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.symlink_to("/bin/true")
    os.chown(tmp_path, 1234, -1)
    assert command._others(program) == f"user 1234 (by {tmp_path})"
    assert command._others(Path("/bin/true")) == ""


@pytest.mark.parametrize("name", ["", "-x", "--now", "a b", "a/b", "a.b", "\u00e9", "_"])
def test_a_name_that_systemd_could_take_for_something_else_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        command.command(command.Action.STATUS, name=name)


def test_a_backbone_is_checked_now_and_joined_at_every_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "here", lambda: systemd(tmp_path, Init()))
    file = tmp_path / "backbone.yaml"
    file.write_text("machine: alpha\n")
    with pytest.raises(InvalidInput, match="exactly one of listen"):
        command.command(command.Action.INSTALL, tmp_path / "state", backbone=file, show=True)
    file.write_text("machine: alpha\nlisten: 10.0.0.1\n")
    command.command(command.Action.INSTALL, tmp_path / "state", backbone=file, show=True)
    assert f"--backbone {file}" in capsys.readouterr().out
