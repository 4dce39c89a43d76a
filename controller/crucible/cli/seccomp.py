"""``crucible seccomp``."""

import platform
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from crucible.errors import InvalidInput
from crucible.model.manifest import PluginType

EXAMPLES: Final = """\b
Examples:
  crucible seccomp --type python
  crucible seccomp --type binary --format bpf --arch arm64 > filter.bpf
  crucible seccomp --directory /var/lib/kubelet/seccomp/crucible

The last, run on every node of a cluster, installs what `crucible operator --seccomp crucible/{type}.json`
then names. Docker and the sandboxes of this machine need nothing installed.
"""


class Form(StrEnum):
    """Who is to read it."""

    KUBERNETES = "kubernetes"
    DOCKER = "docker"
    BPF = "bpf"


class Arch(StrEnum):
    """A machine, as Kubernetes and Docker call it, or as the kernel does."""

    X86_64 = "x86-64"
    AMD64 = "amd64"
    ARM64 = "arm64"


_MACHINES: Final = {Arch.X86_64: "x86_64", Arch.AMD64: "x86_64", Arch.ARM64: "aarch64"}


def command(
    kind: Annotated[PluginType, typer.Option("--type", help="Whose profile.")] = PluginType.BINARY,
    form: Annotated[Form, typer.Option("--format", help="Who is to read it.")] = Form.KUBERNETES,
    arch: Annotated[
        Arch | None,
        typer.Option("--arch", help="Only this machine. Default: both in JSON; for bpf, this one."),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory", metavar="DIR", help="Write one file for each type, TYPE.json or TYPE.bpf."
        ),
    ] = None,
) -> None:
    """Print the system call profile of a plugin type, as container runtimes or the kernel read it."""
    machine = _MACHINES[arch] if arch else None
    if directory is None:
        sys.stdout.buffer.write(profile_as(form, kind, machine))
        return
    suffix = "bpf" if form is Form.BPF else "json"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for one in PluginType:
            path = directory / f"{one.value}.{suffix}"
            path.write_bytes(profile_as(form, one, machine))
            path.chmod(0o644)
            print(path)
    except OSError as error:
        raise InvalidInput(f"--directory {directory}: cannot be written: {error.strerror}") from None


def profile_as(form: Form, kind: PluginType, machine: str | None) -> bytes:
    """Return a type's profile as bytes; ``machine`` None is both, or for a program this one."""
    from crucible.core import bpf  # noqa: PLC0415 - the table of calls is long
    from crucible.core.profiles import IN_PODS, PROFILES  # noqa: PLC0415 - the same
    from crucible.core.seccomp_json import document  # noqa: PLC0415 - the same

    profile = (IN_PODS if form is Form.KUBERNETES else PROFILES)[kind.value]
    if form is Form.BPF:
        return bpf.encode(bpf.program(profile, machine or platform.machine()))
    return document(profile, (machine,) if machine else tuple(bpf.AUDIT_ARCH)).encode() + b"\n"
