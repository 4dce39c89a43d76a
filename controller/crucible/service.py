"""The systemd unit under which a local control plane runs from boot on. Pure: text in, text out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from pathlib import Path

Scope = Literal["system", "user"]
_CONTROL: Final = re.compile(r"[\x01-\x1f\x7f]")
LEAF: Final = "crucible-controller"
"""Where systemd 254 and newer puts the controller itself, so that plugins' groups can lie beside it."""
STATE_OF_SYSTEM: Final = "/var/lib/crucible"

_HARDENING: Final = (
    "NoNewPrivileges=yes",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
)
# What a controller that is root never needs. What would cover parts of /proc is left out: a sandbox could not
# mount its own any more. So is what keeps host names, for each sandbox has one.
_HARDENING_OF_ROOT: Final = (
    "ProtectSystem=full",
    "ProtectKernelModules=yes",
    "CapabilityBoundingSet=~CAP_SYS_MODULE CAP_SYS_BOOT CAP_SYS_TIME CAP_SYS_RAWIO CAP_SYSLOG",
    "CapabilityBoundingSet=~CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_MAC_ADMIN CAP_MAC_OVERRIDE",
)


@dataclass(frozen=True, slots=True)
class Service:
    """One control plane as a service.

    Attributes:
        name: of the unit, without ``.service``.
        scope: of the whole system, or of one user.
        program: the command that is ``crucible``.
        state: its state folder.
        options: more words for ``crucible up``.
        runtime: what makes its instances.
        environment: variables it needs besides those systemd gives.
    """

    name: str
    scope: Scope
    program: tuple[str, ...]
    state: Path
    options: tuple[str, ...] = ()
    runtime: str = "process"
    environment: tuple[tuple[str, str], ...] = ()


def unit(service: Service) -> str:
    """Return the text of its unit.

    ``KillMode=process`` is what makes plugins outlive a restart of the controller: systemd ends that alone.
    """
    engine = service.runtime == "docker" and service.scope == "system"
    words = (*service.program, "up", "--state", str(service.state), "--runtime", service.runtime)
    state_directory = (
        ("StateDirectory=crucible", "StateDirectoryMode=0700")
        if service.scope == "system" and str(service.state) == STATE_OF_SYSTEM
        else ()
    )
    lines = (
        "# Written by `crucible service install`, and written anew by it: put changes into a drop-in.",
        "[Unit]",
        f"Description=Crucible Plugin Manager, state in {_plain(str(service.state))}",
        *(("After=network-online.target docker.service", "Wants=docker.service") if engine else ()),
        # A name of a folder is data: what systemd would read as a specifier is doubled.
        f"RequiresMountsFor={_word(str(service.state), dollar='$')}",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart={' '.join(_word(word) for word in (*words, *service.options))}",
        *(f"Environment={_word(f'{name}={value}', dollar='$')}" for name, value in service.environment),
        "Restart=always",
        "RestartSec=1s",
        "KillMode=process",
        "TimeoutStopSec=30s",
        "Delegate=yes",
        *((f"DelegateSubgroup={LEAF}",) if service.scope == "user" else ()),
        "LimitNOFILE=65536",
        "OOMPolicy=continue",
        "UMask=0077",
        *state_directory,
        *_HARDENING,
        *(_HARDENING_OF_ROOT if service.scope == "system" else ()),
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if service.scope == 'system' else 'default.target'}",
    )
    return "\n".join(lines) + "\n"


def _word(text: str, dollar: str = "$$") -> str:
    """Quote one word as systemd reads it: C escapes, specifiers and, where a command is, variables spelt out.

    A carriage return ends a line for systemd as a line feed does: no control character stays as it is.
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", dollar)
    escaped = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", escaped)
    return f'"{escaped}"' if any(char in " ;'\"\\" for char in escaped) or not escaped else escaped


def _plain(text: str) -> str:
    return " ".join(text.replace("%", "%%").split())
