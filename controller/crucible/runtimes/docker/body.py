"""Compiles a workload into the body of ``POST /containers/create``. Pure: what is asked is all it knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from crucible.core import doors
from crucible.core.guest import host_flags
from crucible.core.scratch import scratch_sizes
from crucible.core.secrets import FOLDER
from crucible.model.door import DOORS
from crucible.runtimes.docker.network import NO_NAMES, PROXY
from crucible.runtimes.volumes import groups_of

if TYPE_CHECKING:
    from crucible.model.workload import Workload
    from crucible.runtimes.volumes import Shown

SOURCE: Final = "/plugin"
CONFIG: Final = "/config/config.json"
NAMES: Final = "/etc/hosts"
TMP: Final = "/tmp"  # noqa: S108 - inside the container


@dataclass(frozen=True, slots=True)
class Image:
    """What a container is made from.

    Attributes:
        id: names exactly this image.
        before: the words before a plugin's program; empty for one that runs by itself.
        env: variables the interpreter needs.
        volumes: paths for which the image wants a volume, which would be writable and without a limit.
    """

    id: str
    before: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """What the host adds to a workload.

    Attributes:
        instance: its name, for people.
        labels: whose it is.
        uid: user and group id of the plugin's processes.
        seccomp: the profile, as JSON text.
        config: file with the plugin's configuration, on the engine's host, or the folder in which a new one
            takes the old one's place.
        config_place: where that is shown.
        source: folder with the plugin's files there; empty for a whole image.
        network: name of the network it joins; empty for none.
        names: file with the names that are known without a network, on the engine's host.
        route: its slot, by which its relay finds it there.
        doors: folder of its doors, on the engine's host; empty: it has none.
        volumes: folders of the engine's host that were granted.
        secrets: folder of what is in its Secrets, in memory of the engine's host; empty: it has none.
        engine_runtime: the engine's runtime to use; empty for its default.
        log_files: how many files of output the engine keeps.
        log_bytes: how large each may become.
    """

    instance: str
    labels: dict[str, str]
    uid: int
    seccomp: str
    config: str
    config_place: str = CONFIG
    source: str = ""
    network: str = ""
    names: str = ""
    route: str = ""
    doors: str = ""
    secrets: str = ""
    volumes: tuple[Shown, ...] = ()
    engine_runtime: str = ""
    log_files: int = 3
    log_bytes: int = 1 << 20


def body(workload: Workload, image: Image, setting: Setting) -> dict[str, Any]:
    """Return the whole request. Nothing of it comes from the image but what ``image`` says."""
    return {
        "Image": image.id,
        "User": f"{setting.uid}:{setting.uid}",
        **_command(workload, image),
        "Env": [f"{name}={value}" for name, value in environment(workload, image, setting.instance)],
        "Hostname": setting.instance[-63:].strip("-.") or "plugin",
        "Labels": setting.labels,
        "Healthcheck": {"Test": ["NONE"]},  # an image's own would run commands on the engine's clock
        "AttachStdin": False,
        "OpenStdin": False,
        "Tty": False,
        "HostConfig": _host_config(workload, image, setting),
        **_networking(setting.network, setting.route),
    }


def overlap(workload: Workload, image: Image) -> str:
    """Return why an image cannot be run with what a workload is shown; empty where it can.

    A volume of the image inside a folder of the host would be made there, by its path, while whoever else
    writes to that folder may put a link in its way.
    """
    shown = {each.place: f"capabilities.files, {each.volume}" for each in workload.mounts}
    shown |= {SOURCE: "the source", "/config": "the configuration"}
    shown |= {FOLDER: "the Secrets", DOORS: "the doors", NAMES: "the names of hosts"}
    for volume in image.volumes:
        for place, what in shown.items():
            if PurePosixPath(volume).is_relative_to(place):
                where = f"is {place}" if volume == place else f"lies in {place}"
                return (
                    f"the image's VOLUME {volume} {where}, where the plugin is shown something of this host "
                    f"({what}): remove that VOLUME from the image, or change the mount"
                )
    return ""


def environment(workload: Workload, image: Image, instance: str) -> tuple[tuple[str, str], ...]:
    """Return every variable that is set; the manifest's own come last and so prevail."""
    files = () if workload.image else (("CRUCIBLE_SOURCE", SOURCE),)
    usual = () if workload.image else (("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LANG", "C.UTF-8"))
    return (
        *usual,
        ("HOME", TMP),
        *image.env,
        ("CRUCIBLE_PLUGIN", workload.plugin),
        ("CRUCIBLE_NAMESPACE", workload.namespace),
        ("CRUCIBLE_INSTANCE", instance),
        ("CRUCIBLE_CONFIG", CONFIG),
        *doors.environment(workload, PROXY),
        *files,
        *workload.env,
    )


def _command(workload: Workload, image: Image) -> dict[str, Any]:
    """Name program and arguments; for an image without an entrypoint of the manifest's, leave it its own."""
    if not workload.image:
        program = f"{SOURCE}/{workload.entrypoint[0]}"
        words = [*image.before, *host_flags(workload), program, *workload.entrypoint[1:]]
        return {"Entrypoint": words, "Cmd": [], "WorkingDir": SOURCE}
    return {"Entrypoint": list(workload.entrypoint), "Cmd": []} if workload.entrypoint else {}


def _host_config(workload: Workload, image: Image, setting: Setting) -> dict[str, Any]:
    limits = workload.limits
    scratch, shared = scratch_sizes(limits, 1 + len(image.volumes))
    # The plugin owns them: older engines put the mode of the image's own folder in place of this one.
    owner = f"uid={setting.uid},gid={setting.uid}"
    options = f"rw,exec,nosuid,nodev,mode=1777,size={scratch},{owner}"
    return {
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "Privileged": False,
        "SecurityOpt": ["no-new-privileges", f"seccomp={setting.seccomp}"],
        "Runtime": setting.engine_runtime,
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "NetworkMode": setting.network or "none",
        **NO_NAMES,
        "Init": True,
        "Memory": limits.memory,
        "MemorySwap": limits.memory,
        "NanoCpus": limits.cpu * 1_000_000,
        "PidsLimit": limits.pids,
        "Ulimits": [
            {"Name": "nofile", "Soft": limits.open_files, "Hard": limits.open_files},
            # Not 0: a crash handler that cores are piped to, which runs as root, is called for any but 1.
            {"Name": "core", "Soft": 1, "Hard": 1},
        ],
        "ShmSize": shared,
        "Tmpfs": dict.fromkeys((TMP, *image.volumes), options),
        "Mounts": _mounts(setting),
        **_groups(setting),
        "RestartPolicy": {"Name": "no"},  # restarts are the controller's
        "AutoRemove": False,
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-file": str(setting.log_files), "max-size": str(setting.log_bytes)},
        },
    }


def _mounts(setting: Setting) -> list[dict[str, Any]]:
    shown = [(setting.config, setting.config_place)]
    if setting.source:
        shown.append((setting.source, SOURCE))
    if not setting.network:
        shown.append((setting.names, NAMES))
    if setting.doors:
        shown.append((setting.doors, DOORS))
    if setting.secrets:
        shown.append((setting.secrets, FOLDER))
    return [
        *(_bind(source, target, writable=False) for source, target in shown),
        *(_bind(str(each.path), each.place, writable=each.writable) for each in setting.volumes),
    ]


def _bind(source: str, target: str, *, writable: bool) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": not writable,
        "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
    }


def _groups(setting: Setting) -> dict[str, Any]:
    """Make the plugin a member of its volumes' groups; without volumes, of none."""
    groups = groups_of(setting.volumes)
    return {"GroupAdd": [str(group) for group in groups]} if groups else {}


def _networking(network: str, route: str) -> dict[str, Any]:
    """Name it for its relay: as any instance of its plugin, and as this one.

    Without a network the engine is kept from all it does for one, which took two thirds of a start: there is
    a namespace with a loopback all the same, as by ``NetworkMode``, which stays said.
    """
    if not network:
        return {"NetworkDisabled": True}
    names = ["plugin", *([f"plugin-{route}"] if route else [])]
    return {"NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": names}}}}
