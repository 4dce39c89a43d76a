"""Ends everything that a state folder's control plane made on this host, and leaves what people asked for."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crucible.backbone import server
from crucible.backbone.server import ServerPlace
from crucible.bootstrap import UpOptions, control_plane_id, make_adapters
from crucible.control.apiserver.ownership import StateLock
from crucible.doorkeeper import end_companions
from crucible.errors import Conflict, CrucibleError, Unavailable
from crucible.packages.snapshot import SnapshotStore
from crucible.runtimes.secrets import no_secrets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crucible.model.instance import Instance
    from crucible.runtimes.base import Runtime
    from crucible.settings import Places

_CONTROLLER_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.05
UNNAMED: Final = 0
"""For the process that holds a state folder without having written down its pid."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """What was ended.

    Attributes:
        controller: pid of the control plane that ran; None where none did.
        instances: names of the instances that were removed.
        strays: what else bore this control plane's mark, in words.
    """

    controller: int | None
    instances: tuple[str, ...]
    strays: tuple[str, ...]


def runtimes_of(places: Places) -> tuple[str, ...]:
    """Return which runtimes have instances in a state folder, the usual one where none has."""
    folders = {"process": places.process, "docker": places.docker}
    found = tuple(name for name, folder in folders.items() if any((folder / "instances").glob("*/*")))
    return found or tuple(name for name, folder in folders.items() if folder.is_dir())


def end_all(places: Places, grace: float, told: Callable[[str], None]) -> Ended:
    """Stop the control plane of a state folder, then every instance it made.

    Args:
        places: the state folder.
        grace: seconds between asking an instance to end and killing it.
        told: called with what is going on, for people.

    Raises:
        Conflict: another control plane was started meanwhile, by a service that has to be stopped first.
        Unavailable: the control plane or an instance does not end, or the runtime does not answer.
    """
    controller = end_controller(places, told)
    lock = StateLock(places.control)  # whoever starts meanwhile is refused, not fought
    try:
        instances: list[str] = []
        strays: list[str] = []
        for name in runtimes_of(places):
            ended, found = asyncio.run(_end_instances(places, name, grace, told))
            instances += ended
            strays += found
        control_plane = control_plane_id(places.root / "id")
        asyncio.run(end_companions(places, control_plane, told))
        asyncio.run(_end_backbone(ServerPlace(places.backbone, control_plane), told))
    finally:
        lock.release()
    return Ended(controller, tuple(instances), tuple(strays))


def end_controller(places: Places, told: Callable[[str], None]) -> int | None:
    """Stop the control plane that has a state folder; return its pid, None where there was none.

    Raises:
        Unavailable: it does not end.
    """
    deadline = time.monotonic() + _CONTROLLER_SECONDS
    pid: int | None = None
    while (holder := holder_of(places)) is not None:
        if holder == UNNAMED:
            pass  # it is about to say who it is, or has just ended
        elif pid is not None and holder != pid:
            raise Conflict(
                f"process {holder} took {places.root} over: a service starts it again; stop that first: "
                "`systemctl stop crucible`, with --user where it is your own"
            )
        elif pid is None and _ask_to_end(holder, places.control / "lock"):
            pid = holder
            told(f"stopping the control plane, process {pid}")
        if time.monotonic() > deadline:
            who = f"process {pid}" if pid is not None else "which does not say who it is"
            raise Unavailable(
                f"the control plane of {places.root}, {who}, does not end: kill it, then try again"
            )
        time.sleep(_LOOK_SECONDS)
    return pid


def holder_of(places: Places) -> int | None:
    """Return who holds a state folder: a pid, ``UNNAMED`` where it does not say, None for nobody."""
    if not places.control.is_dir():
        return None
    try:
        StateLock(places.control).release()
    except Conflict:
        text = (places.control / "lock").read_text().strip()
        return int(text) if text.isdecimal() else UNNAMED
    return None


async def _end_backbone(place: ServerPlace, told: Callable[[str], None]) -> None:
    held = server.reach(place)
    if held is not None:
        told("stopping the backbone's server")
        await server.end(held)


async def _end_instances(
    places: Places, runtime_name: str, grace: float, told: Callable[[str], None]
) -> tuple[list[str], tuple[str, ...]]:
    options = UpOptions(places, runtime=runtime_name)
    runtime = make_adapters(options, SnapshotStore(places.sources), no_secrets).runtime
    await runtime.open(lambda _: None)
    try:
        if runtime.outage:
            raise Unavailable(runtime.outage)
        instances = runtime.instances()
        results = await asyncio.gather(
            *(_end(runtime, instance, grace, told) for instance in instances), return_exceptions=True
        )
        strays = await runtime.sweep()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [instance.name for instance in instances], strays
    finally:
        await runtime.close()


async def _end(runtime: Runtime, instance: Instance, grace: float, told: Callable[[str], None]) -> None:
    """Ask, wait, and remove whatever became of it."""
    uid, slot = instance.plugin_uid, instance.slot
    if instance.alive:
        told(f"stopping {instance.namespace}/{instance.name}")
        try:
            await runtime.stop(uid, slot)
            async with asyncio.timeout(grace):
                while any(one.slot == slot and one.alive for one in runtime.instances(uid)):  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            told(f"{instance.namespace}/{instance.name} did not end within {grace:g} s: killed")
        except CrucibleError as error:
            log.warning("%s: %s", instance.name, error)
    await runtime.remove(uid, slot)


def _ask_to_end(pid: int, lock: Path) -> bool:
    """Send SIGTERM to the process that has a lock file open; return whether it is that process.

    What the file says is only where to look: a pid may be another process' by now.
    """
    try:
        held = os.pidfd_open(pid)
    except (ProcessLookupError, OverflowError):
        return False
    try:
        if not _has_open(pid, lock):
            return False
        signal.pidfd_send_signal(held, signal.SIGTERM)
    except (ProcessLookupError, FileNotFoundError):
        return False
    except PermissionError as error:
        raise Unavailable(f"process {pid} belongs to another user: stop it as that user") from error
    finally:
        os.close(held)
    return True


def _has_open(pid: int, file: Path) -> bool:
    with os.scandir(f"/proc/{pid}/fd") as entries:
        return any(_leads_to(entry, file) for entry in entries)


def _leads_to(entry: os.DirEntry[str], file: Path) -> bool:
    try:
        return file.samefile(entry.path)
    except OSError:  # closed meanwhile
        return False
