from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from crucible.runtimes.process.cgroups.choice import beside_controller
from crucible.service import LEAF, Scope, Service, unit

PROGRAM = ("/usr/bin/python3", "-m", "crucible")
ODD = Path('/srv/a "b" %h $c;d')


def service(scope: Scope = "system", state: Path = Path("/var/lib/crucible"), **changes: object) -> Service:
    return Service("crucible", scope, PROGRAM, state, **changes)  # type: ignore[arg-type]


def words(text: str, key: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]


@pytest.mark.parametrize("scope", ["system", "user"])
def test_plugins_outlive_the_controller_which_is_always_started_again(scope: Scope) -> None:
    text = unit(service(scope))
    for key, value in (
        ("Restart", "always"),
        ("StartLimitIntervalSec", "0"),
        ("KillMode", "process"),
        ("Delegate", "yes"),
        ("LimitNOFILE", "65536"),
        ("NoNewPrivileges", "yes"),
        ("UMask", "0077"),
    ):
        assert words(text, key) == [value]


def test_nothing_that_would_keep_a_sandbox_from_mounting_its_own_proc_is_set() -> None:
    text = unit(service())
    for key in ("ProtectKernelTunables", "ProtectKernelLogs", "ProtectProc", "ProcSubset", "ProtectHostname"):
        assert words(text, key) == []
    assert words(text, "RestrictNamespaces") == []


def test_the_usual_folder_is_made_by_systemd_and_another_waited_for() -> None:
    assert words(unit(service()), "StateDirectory") == ["crucible"]
    other = unit(service(state=Path("/srv/plugins")))
    assert words(other, "StateDirectory") == []
    assert words(other, "RequiresMountsFor") == ["/srv/plugins"]


def test_a_service_of_the_system_waits_for_the_engine_it_needs() -> None:
    assert words(unit(service(runtime="docker")), "Wants") == ["docker.service"]
    assert words(unit(service()), "Wants") == []
    told = unit(service(runtime="docker", environment=(("DOCKER_HOST", "unix:///run/d.sock"),)))
    assert words(told, "Environment") == ["DOCKER_HOST=unix:///run/d.sock"]


def test_each_scope_starts_at_boot() -> None:
    assert words(unit(service("system")), "WantedBy") == ["multi-user.target"]
    assert words(unit(service("user")), "WantedBy") == ["default.target"]


def test_a_folder_name_is_data() -> None:
    text = unit(service(state=ODD))
    (line,) = words(text, "ExecStart")
    assert '"/srv/a \\"b\\" %%h $$c;d"' in line
    configparser.ConfigParser(interpolation=None, strict=False).read_string(
        text.partition("[Unit]")[1] + "\n"
    )


@pytest.mark.parametrize("scope", ["system", "user"])
@pytest.mark.parametrize("state", [Path("/var/lib/crucible"), Path("/srv/plugins"), ODD])
def test_systemd_finds_nothing_wrong(tmp_path: Path, scope: Scope, state: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze: install the package systemd")
    path = tmp_path / "crucible.service"
    # A release before 254 does not know where to put the controller, says so, and goes on.
    path.write_text(unit(service(scope, state)).replace(f"DelegateSubgroup={LEAF}\n", ""))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_LOG_LEVEL": "warning"},
    )
    assert "crucible.service" not in done.stderr
    assert done.returncode == 0


def test_groups_lie_beside_a_controller_that_its_service_put_apart() -> None:
    assert beside_controller(f"user.slice/crucible.service/{LEAF}") == "user.slice/crucible.service"
    assert beside_controller("user.slice/shell.scope") == "user.slice/shell.scope"


def test_no_name_of_a_folder_begins_a_line_of_its_own() -> None:
    odd = Path("/srv/x\rExecStartPre=/bin/evil\nExecStop=/bin/evil\x0bUser=root")
    text = unit(service(state=odd, environment=(("A", "b\rUser=root"),)))
    lines = re.split("[\r\n]", text)
    assert not [line for line in lines if line.startswith(("ExecStartPre", "ExecStop", "User"))]
    assert not set("\r\x0b") & set(text)


def test_a_dollar_is_doubled_in_commands_alone() -> None:
    text = unit(service(state=Path("/srv/$a"), environment=(("A", "$b"),)))
    assert "--state /srv/$$a" in words(text, "ExecStart")[0]
    assert words(text, "RequiresMountsFor") == ["/srv/$a"]
    assert words(text, "Environment") == ["A=$b"]
