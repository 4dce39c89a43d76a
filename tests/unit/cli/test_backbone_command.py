"""``crucible backbone``: passes, and who has one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from crucible.backbone.machines import Machines
from crucible.backbone.settings import read_pass
from crucible.cli import exits

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder whose control plane has had a server."""
    folder = tmp_path / "state" / "backbone"
    folder.mkdir(parents=True)
    (folder / "address").write_text(json.dumps(["10.0.0.1", 4222]))
    return folder.parent


def test_a_machine_is_invited_renewed_listed_and_revoked(crucible: Any, state: Path, tmp_path: Path) -> None:
    file, on = tmp_path / "beta.pass", ("--state", str(state))
    done = crucible("backbone", "invite", "beta", "-n", "default", "-n", "tools", "-f", str(file), *on)
    assert done.code == 0, done.err
    assert file.stat().st_mode & 0o077 == 0
    first = read_pass(file)
    assert (first.machine, first.host, first.port) == ("beta", "10.0.0.1", 4222)
    token = Machines(state / "backbone").all()["beta"].token
    assert crucible("backbone", "invite", "beta", "-n", "default", "-f", str(file), *on).code == exits.REFUSED
    assert crucible("backbone", "renew", "beta", "-f", str(file), *on).code == 0
    assert read_pass(file).certificate != first.certificate
    again = Machines(state / "backbone").all()["beta"]
    assert (again.token, again.namespaces) == (token, ("default", "tools"))
    listed = crucible("backbone", "ls", *on).out
    assert "beta" in listed
    assert "default,tools" in listed
    found = json.loads(crucible("backbone", "ls", "-o", "json", *on).out)
    assert [(one["machine"], one["namespaces"]) for one in found] == [("beta", ["default", "tools"])]
    assert crucible("backbone", "revoke", "beta", *on).code == 0
    assert "no machine" in crucible("backbone", "ls", *on).out
    assert crucible("backbone", "revoke", "beta", *on).code == exits.NOT_FOUND
    assert crucible("backbone", "renew", "beta", "-f", str(file), *on).code == exits.NOT_FOUND
    assert crucible("backbone", "invite", "beta", "-n", "default", "-f", str(file), *on).code == 0
    assert Machines(state / "backbone").all()["beta"].token != token


def test_a_pass_can_be_printed(crucible: Any, state: Path) -> None:
    done = crucible("backbone", "invite", "beta", "-n", "default", "-f", "-", "--state", str(state))
    assert yaml.safe_load(done.out)["machine"] == "beta"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("invite",), exits.USAGE),
        (("ls", "beta"), exits.USAGE),
        (("invite", "beta", "-f", "-"), exits.REFUSED),
        (("invite", "beta", "-n", "default"), exits.REFUSED),
        (("invite", "Beta", "-n", "default", "-f", "-"), exits.REFUSED),
        (("invite", "beta", "-n", "De", "-f", "-"), exits.REFUSED),
    ],
)
def test_what_is_wrong_is_refused(crucible: Any, state: Path, words: tuple[str, ...], code: int) -> None:
    done = crucible("backbone", *words, "--state", str(state))
    assert done.code == code, done.err
    assert Machines(state / "backbone").all() == {}


def test_where_there_is_no_server_nobody_is_invited(crucible: Any, tmp_path: Path) -> None:
    on = ("--state", str(tmp_path))
    assert crucible("backbone", "invite", "beta", "-n", "default", "-f", "-", *on).code == exits.NOT_FOUND
    (tmp_path / "backbone").mkdir()
    done = crucible("backbone", "invite", "beta", "-n", "default", "-f", "-", *on)
    assert (done.code, "--backbone" in done.err) == (exits.UNREACHABLE, True)
    assert crucible("backbone", "status", *on).code == exits.UNREACHABLE
