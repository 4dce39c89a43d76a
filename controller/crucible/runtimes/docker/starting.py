"""Starts one container. Whenever the controller dies, the next survey finds it created, running or not."""

from __future__ import annotations

import io
import shutil
import tarfile
import time
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from docker import errors

from crucible.core.guest import HOSTS
from crucible.core.profiles import profile_of
from crucible.core.seccomp_json import document
from crucible.errors import InvalidSource, NotFound, Unavailable
from crucible.model.door import Door
from crucible.model.instance import Exit
from crucible.runtimes import config as config_files
from crucible.runtimes.docker import labels as marks
from crucible.runtimes.docker.body import CONFIG, Setting, body, overlap
from crucible.runtimes.docker.held import Held, new_instance
from crucible.runtimes.docker.network import OUT
from crucible.runtimes.secrets import open_secrets
from crucible.runtimes.volumes import find_volumes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from crucible.model.instance import Instance
    from crucible.model.workload import Slot, Workload
    from crucible.runtimes.docker.client import Client
    from crucible.runtimes.docker.containers import Containers
    from crucible.runtimes.docker.engine import Engine
    from crucible.runtimes.docker.images import Images
    from crucible.runtimes.docker.settings import DockerSettings
    from crucible.runtimes.secrets import SecretsOf

_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_GROUPS: Final = "/etc/group"
_GROUPS_MOST: Final = 1 << 20
_NO_FILE: Final = 0x8F28_0000
"""Bits of Go's ``os.FileMode`` of which a file has none: a folder's archive holds all that is in it."""


@dataclass(frozen=True, slots=True)
class Given:
    """Who gives a container what it is shown: sources by digest, what is in Secrets by namespace and name."""

    source_of: Callable[[str], Path]
    secrets_of: SecretsOf


class Starter:
    """Turns workloads into running containers."""

    def __init__(
        self,
        engine: Engine,
        settings: DockerSettings,
        containers: Containers,
        images: Images,
        given: Given,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._containers = containers
        self._images = images
        self._given = given

    async def start(self, workload: Workload, slot: Slot) -> Instance:
        """Create and start; the plugin's own failures become an ended instance."""
        try:
            held = self._write_down(workload, slot)
        except OSError as error:
            raise Unavailable(f"this host cannot start anything now: {error}") from error
        self._containers.add(held)
        asked = False
        try:
            request = await self._request(held, workload)
            asked = True
            await self._create(held, request)
        except (errors.APIError, InvalidSource) as error:
            text = str(getattr(error, "explanation", None) or error)
            # First why, then away with it: the engine tells of a container that goes, not of the reason.
            how = Exit(at=time.time(), problem=f"it cannot be started: {text}"[:1024])
            self._containers.conclude(held, how)
            await self._containers.discard(held)
        except BaseException:
            # Nothing was confirmed. If it was made all the same, a survey finds it under its name; what it is
            # shown has to be there then.
            (self._containers.let_go if asked else self._containers.drop)(held)
            raise
        else:
            self._containers.came_up(held)
        return held.instance

    def _write_down(self, workload: Workload, slot: Slot) -> Held:
        """Make what is shown to the container."""
        authority = self._settings.bus_authority() if workload.sealed else ""
        directory = self._containers.directory(workload.plugin_uid, slot)
        shutil.rmtree(directory, ignore_errors=True)  # of a start that was never confirmed
        directory.mkdir(mode=0o755, parents=True)
        config_files.place(directory, workload.config)
        held = Held(
            new_instance(workload, slot, time.time()),
            self._containers.free_uid(),
            directory,
            type_image=not workload.image,
            names=workload.doors,
        )
        held.note_config(held.instance.config)
        held.doors.seal(authority)
        held.doors.open()
        return held

    async def _request(self, held: Held, workload: Workload) -> dict[str, Any]:
        image = await self._images.image_for(workload)
        problem = overlap(workload, image)
        if problem:
            raise InvalidSource(problem)
        slot = held.instance.slot
        setting = Setting(
            instance=held.instance.name,
            labels=marks.labels_of(
                self._settings.control_plane, workload, slot, held.uid, held.instance.created_at
            ),
            uid=held.uid,
            seccomp=document(profile_of(workload), self._engine.machines),
            **_config(held, workload),
            source="" if workload.image else str(self._given.source_of(workload.source)),
            network=await self._network(workload),
            names=str(self._settings.names),
            route=str(slot),
            doors=held.doors.path,
            secrets=self._show_secrets(held, workload),
            volumes=find_volumes(workload.mounts, self._settings.volumes),
            engine_runtime=self._engine.vm_runtime if workload.isolation == "vm" else "",
            log_files=self._settings.log_files,
            log_bytes=self._settings.log_bytes,
        )
        return body(workload, image, setting)

    def _show_secrets(self, held: Held, workload: Workload) -> str:
        """Write what is in a workload's Secrets into memory; return the folder, empty where it has none.

        Raises:
            Unavailable: one is gone, or nothing can be kept in memory.
            InvalidSource: what is in them cannot be shown.
        """
        if not workload.secrets:
            return ""
        try:
            files = open_secrets(workload, self._given.secrets_of).files
            instance = held.instance
            return str(self._containers.memory.write(instance.plugin_uid, instance.slot, held.uid, files))
        except NotFound as error:
            raise Unavailable(str(error)) from error  # it went after it was looked for: look again
        except ValueError as error:
            raise InvalidSource(str(error)) from error
        except OSError as error:
            raise Unavailable(f"its Secrets cannot be kept in memory: {error.strerror}") from error

    async def _network(self, workload: Workload) -> str:
        ways = (*workload.listen, *((OUT,) if Door.EGRESS in workload.doors else ()))
        if not ways:
            return ""
        return await self._containers.relays.ensure(workload.plugin_uid, ways)

    async def _create(self, held: Held, request: dict[str, Any]) -> None:
        """Create and start in one go; one of ours that has the name and is in the way is cleared away.

        Raises:
            Conflict: one that is not ours has the name.
            Unavailable: the engine does not answer, or the image went away.
            docker.errors.APIError: it cannot be started as it is.
        """
        name = marks.name_of(self._settings.control_plane, held.instance.plugin_uid, held.instance.slot)
        try:
            await self._engine.call(self._create_and_start, held, request, name)
        except errors.APIError as error:
            if error.status_code == _NOT_FOUND and not held.container:
                self._images.forget(request["Image"])
                raise Unavailable(f"the image {request['Image']} went away from the engine") from error
            if error.status_code != _CONFLICT or held.container:
                raise
            await self._containers.clear_name(name)
            await self._engine.call(self._create_and_start, held, request, name)

    def _create_and_start(self, held: Held, request: dict[str, Any], name: str) -> None:
        """Two requests, no look back; runs in a thread of the pool."""
        client = self._engine.client
        made = client.create_container_from_config(request, name)  # type: ignore[no-untyped-call]
        self._containers.know(held, made["Id"])  # before it starts, so that its events find it
        if not held.type_image:
            groups_allow(client, made["Id"])
            volumes_allow(client, made["Id"], request["HostConfig"])
        client.start(made["Id"])


def volumes_allow(client: Client, container: str, host: Mapping[str, Any]) -> None:
    """Look where a whole image's volumes are, past its links: in no folder that others of the host write to.

    Raises:
        InvalidSource: one is; the engine would make it there, as root, wherever a link leads by then.
    """
    shared = [mount["Target"] for mount in host["Mounts"] if not mount["ReadOnly"]]
    for volume in host["Tmpfs"] if shared else ():
        real = _past_links(client, container, volume)
        for place in shared:
            if real.is_relative_to(place):
                raise InvalidSource(
                    f"the image's VOLUME {volume} is {real}, by a link, and lies in {place}, where it "
                    "is shown a folder of this host: remove the VOLUME or the link, or change the mount"
                )


def _past_links(client: Client, container: str, path: str) -> PurePosixPath:
    at = PurePosixPath("/")
    for name in PurePosixPath(path).parts[1:]:
        at /= name
        stat = client.stat(container, str(at))
        if stat is not None and stat["linkTarget"]:
            at = PurePosixPath(stat["linkTarget"])
    return at


def show_names(path: Path) -> None:
    """Write the file that containers without a network are shown; those that run keep the one they have."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.write_text(HOSTS)
    fresh.chmod(0o444)  # whatever the controller's umask is: plugins are other users
    fresh.replace(path)


def _config(held: Held, workload: Workload) -> dict[str, str]:
    """Show the file, which stays what it is, or the folder in which a new one takes its place."""
    folder = config_files.folder_of(held.directory)
    if workload.live_config:
        return {"config": str(folder), "config_place": str(PurePosixPath(CONFIG).parent)}
    return {"config": str(folder / PurePosixPath(CONFIG).name)}


def groups_allow(client: Client, container: str) -> None:
    """Look into a whole image's list of groups, which engines read to find out who a number is.

    Raises:
        InvalidSource: a group's name is a number: engines would make a plugin of that number its member.
    """
    stat = client.stat(container, _GROUPS)
    if stat is None:
        return
    if stat["linkTarget"] or stat["mode"] & _NO_FILE or stat["size"] > _GROUPS_MOST:
        raise InvalidSource(f"the image's {_GROUPS} is no file, or too large to be looked at: make it one")
    chunks, _ = client.get_archive(container, _GROUPS)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        file = archive.extractfile(archive.next() or "")
        names = [line.partition(b":")[0].strip() for line in file or ()]
    if any(name.lstrip(b"+-").isdigit() for name in names):
        raise InvalidSource(f"the image's {_GROUPS} names a group by a number: rename that group")
