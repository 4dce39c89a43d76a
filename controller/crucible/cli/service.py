"""``crucible service``."""

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from crucible.cli.exits import Failed
from crucible.cli.joining import checked
from crucible.cli.options import Data, DataOutput
from crucible.cli.printing import data_as
from crucible.cli.terminal import note
from crucible.cli.up import RuntimeName
from crucible.cli.volumes import host_volumes
from crucible.errors import InvalidInput, NotFound, Unsupported
from crucible.service import Service, unit
from crucible.settings import default_root

EXAMPLES: Final = """\b
Examples:
  crucible service install
  crucible service install --state /srv/plugins --name plugins --runtime docker
  crucible service install --print
  crucible service status -o json
  crucible service uninstall

As root it is a service of the system, else one of your own, which is told to go on when you log out. It
starts with the machine, is started again when it ends, and its plugins outlive it; after a boot the same
plugins run.
"""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_BOOTED: Final = Path("/run/systemd/system")
"""There exactly while systemd is the machine's init (see sd_booted(3))."""


class Action(StrEnum):
    """What to do."""

    INSTALL = "install"
    STATUS = "status"
    UNINSTALL = "uninstall"


@dataclass(frozen=True, slots=True)
class Systemd:
    """The systemd of this machine.

    Attributes:
        units: the folder of units that administrators or users write.
        user: it is a user's own.
        run: runs a command, and returns its status and what it printed.
        booted: whether systemd runs here.
    """

    units: Path
    user: bool
    run: Callable[[Sequence[str]], tuple[int, str]]
    booted: bool

    def control(self, *words: str) -> tuple[int, str]:
        """Run ``systemctl``."""
        return self.run(("systemctl", *(("--user",) if self.user else ()), *words))

    def insist(self, *words: str) -> None:
        """Run ``systemctl``, and fail where that does."""
        code, said = self.control(*words)
        if code:
            raise Failed(f"systemctl {' '.join(words)} failed: {said.strip() or f'status {code}'}")


def command(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    action: Annotated[Action, typer.Argument(metavar="install|status|uninstall", hidden=True)],
    state: Annotated[
        Path | None, typer.Option("--state", metavar="DIR", help="State folder of the control plane.")
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the unit.")] = "crucible",
    runtime: Annotated[
        RuntimeName, typer.Option("--runtime", metavar="process|docker", help="What runs the plugins.")
    ] = RuntimeName.PROCESS,
    manifests: Annotated[
        Path | None, typer.Option("--manifests", metavar="DIR", help="Keep this folder applied.")
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(
            "--volume", metavar="NAME=DIR[:ro]", help="Offer plugins a folder by this name; repeatable."
        ),
    ] = None,
    alerts: Annotated[
        Path | None, typer.Option("--alerts", metavar="FILE", help="Tell an Alertmanager what is wrong.")
    ] = None,
    backbone: Annotated[
        Path | None,
        typer.Option("--backbone", metavar="FILE", help="Join other machines' plugins, as this file says."),
    ] = None,
    show: Annotated[bool, typer.Option("--print", help="Print the unit, and change nothing.")] = False,
    output: DataOutput = Data.TEXT,
) -> None:
    """Run the control plane as a service of systemd, from boot on."""
    if _NAME.fullmatch(name) is None:
        raise InvalidInput(f"--name {name!r}: use letters, digits, - and _, a letter or digit first")
    systemd = here()
    root = (state or default_root()).absolute()
    host_volumes(volume or (), root)  # what is wrong with one is said now, not at boot
    options = (
        *(("--manifests", str(manifests.resolve())) if manifests else ()),
        *(word for each in volume or () for word in ("--volume", each)),
        *(("--alerts", str(alerts.resolve())) if alerts else ()),
        *(("--backbone", str(checked(backbone))) if backbone else ()),
        *("--log-format", "json"),
    )
    kept = tuple((key, os.environ[key]) for key in ("DOCKER_HOST",) if os.environ.get(key))
    service = Service(
        name=name,
        scope="user" if systemd.user else "system",
        program=(sys.executable, "-m", "crucible"),
        state=root,
        options=options,
        runtime=runtime.value,
        environment=kept if runtime is RuntimeName.DOCKER else (),
    )
    if show:
        print(unit(service), end="")
        return
    if not systemd.booted:
        raise Unsupported(
            "systemd does not run here: start `crucible up` from what does, "
            "or print the unit for another machine with --print"
        )
    match action:
        case Action.INSTALL:
            install(service, systemd)
        case Action.STATUS:
            status(service, systemd, output)
        case Action.UNINSTALL:
            uninstall(service, systemd)


def here() -> Systemd:
    """Return the systemd of whoever runs this."""
    user = os.geteuid() != 0
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    units = config / "systemd/user" if user else Path("/etc/systemd/system")
    return Systemd(units, user, _run, _BOOTED.is_dir() and shutil.which("systemctl") is not None)


def install(service: Service, systemd: Systemd) -> None:
    """Write the unit, have it started now and at boot, and say so."""
    path = systemd.units / f"{service.name}.service"
    text = unit(service)
    before = path.read_text() if _is_ours(path) else ""
    if not before and (path.is_symlink() or path.exists()):
        raise InvalidInput(
            f"{path} is there and was not written by this command, or is masked: choose another --name"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.replace(path)
    print(f"{path} {'unchanged' if text == before else 'written'}")
    if not systemd.user and (who := _others(Path(service.program[0]))):
        note(f"root runs {service.program[0]}, which {who} can change: install it where only root writes")
    systemd.insist("daemon-reload")
    systemd.insist("enable", f"{service.name}.service")
    systemd.insist("restart", f"{service.name}.service")
    print(f"{service.name}.service runs, and starts with the machine; its state is in {service.state}")
    if systemd.user:
        who = pwd.getpwuid(os.geteuid()).pw_name
        code, said = systemd.run(("loginctl", "enable-linger", who))
        if code:
            note(
                f"it ends when you log out: ask an administrator for `loginctl enable-linger {who}` "
                f"({said.strip()})"
            )


def status(service: Service, systemd: Systemd, output: Data) -> None:
    """Print whether it is installed and runs."""
    path = systemd.units / f"{service.name}.service"
    facts = {
        "unit": str(path),
        "installed": path.exists(),
        "enabled": systemd.control("is-enabled", f"{service.name}.service")[1].strip() or "not-found",
        "active": systemd.control("is-active", f"{service.name}.service")[1].strip() or "unknown",
    }
    if output is Data.TEXT:
        for key, value in facts.items():
            print(f"{key:<10} {'yes' if value is True else 'no' if value is False else value}")
    else:
        print(data_as(facts, output), end="")
    if facts["active"] != "active":
        raise typer.Exit(1)


def uninstall(service: Service, systemd: Systemd) -> None:
    """Stop it, have it forgotten, and say what stays."""
    path = systemd.units / f"{service.name}.service"
    if not path.exists():
        raise NotFound(f"{path} is not there: nothing was installed under that name")
    if not _is_ours(path):
        raise InvalidInput(f"{path} was not written by this command: it stays as it is")
    systemd.insist("disable", "--now", f"{service.name}.service")
    path.unlink()
    systemd.insist("daemon-reload")
    print(f"{path} removed; plugins run on: `crucible down` stops them")


def _is_ours(path: Path) -> bool:
    """Whether a unit is a file that this command wrote; a link may be another unit's name, or a mask."""
    return path.is_file() and not path.is_symlink() and "crucible service install" in path.read_text()


def _others(program: Path) -> str:
    """Return who but root could change a program that root is going to run; empty for nobody."""
    if not program.exists():
        return ""
    for each in (program, *program.parents, *program.resolve().parents):
        found = each.stat()
        if found.st_uid != 0:
            return f"user {found.st_uid} (by {each})"
    return ""


def _run(words: Sequence[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout + done.stderr
