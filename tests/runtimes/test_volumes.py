"""What a plugin can do with the volumes it was granted, tried from inside, and with those it was not."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness import FIRST, PYTHON

from crucible.errors import Unavailable
from crucible.model.enforcement import Control, Level
from crucible.model.volume import HostVolume, Mount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import ProcessHarness
    from harness_docker import DockerHarness

READ = Mount("notes", "/data/notes", writable=False)
WRITE = Mount("notes", "/data/notes", writable=True)
GROUP = 54_322
# Tries all that one can do with a folder, prints what came of it, and stays.
PROGRAM = """\
import errno, json, os, signal
def attempt(function, *arguments, **options):
    try:
        found = function(*arguments, **options)
        return found if isinstance(found, (str, list)) else "done"
    except OSError as error:
        return errno.errorcode[error.errno]
def read(path):
    with open(path) as file:
        return file.read()
def write(path):
    with open(path, "w") as file:
        file.write("mine")
here = "/data/notes"
mounts = [line.split() for line in open("/proc/self/mountinfo")]
print(json.dumps({
    "seen": attempt(os.listdir, "/data"),
    "read": attempt(read, f"{here}/note.txt"),
    "read by link to the host": attempt(read, f"{here}/out"),
    "read by relative link": attempt(read, f"{here}/up"),
    "list above": attempt(os.listdir, f"{here}/.."),
    "create": attempt(write, f"{here}/new.txt"),
    "overwrite": attempt(write, f"{here}/note.txt"),
    "append": attempt(os.open, f"{here}/note.txt", os.O_WRONLY | os.O_APPEND),
    "unlink": attempt(os.unlink, f"{here}/old.txt"),
    "chmod": attempt(os.chmod, f"{here}/note.txt", 0o777),
    "utime": attempt(os.utime, f"{here}/note.txt"),
    "mkdir beside": attempt(os.mkdir, "/data/other"),
    "device": attempt(os.mknod, f"{here}/device", 0o20666, os.makedev(1, 3)),
    "open device": attempt(os.open, f"{here}/disk", os.O_RDONLY),
    "run": attempt(os.posix_spawn, f"{here}/program", ["program"], {}),
    "mounts": [line[5].split(",") for line in mounts if line[4] == here],
}), flush=True)
signal.pause()
"""
CHANGES = ("create", "overwrite", "append", "unlink", "chmod", "utime")


@pytest.fixture(params=["process", "docker"])
def host(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Every runtime on a host that offers one volume, beside a file that it does not."""
    harness = request.getfixturevalue(request.param)
    place = Path(tempfile.mkdtemp(prefix="crucible-volume-"))
    try:
        fill(place)
        harness.volumes = (HostVolume("notes", (place / "notes").resolve(), writable=True),)
        yield harness
    finally:
        shutil.rmtree(place)


@pytest.fixture
async def keeper(host: Any) -> Any:
    """The runtime of a host that offers its volume."""
    await host.reopen()
    return host


def fill(place: Path) -> None:
    place.chmod(0o755)
    (place / "outside.txt").write_text("the host's")
    notes = place / "notes"
    notes.mkdir()
    for name in ("note.txt", "old.txt"):
        (notes / name).write_text("a note")
        (notes / name).chmod(0o664)
    (notes / "out").symlink_to(place / "outside.txt")
    (notes / "up").symlink_to("../outside.txt")
    (notes / "program").write_bytes(Path("/bin/true").read_bytes())
    (notes / "program").chmod(0o755)
    if os.geteuid() == 0:
        for path in (notes, notes / "note.txt", notes / "old.txt"):
            os.chown(path, 0, GROUP)
        os.mknod(notes / "disk", stat.S_IFBLK | 0o666, notes.stat().st_dev)
        (notes / "disk").chmod(0o666)
    notes.chmod(0o2770)


def folder(harness: Any) -> Path:
    (volume,) = harness.volumes
    return Path(volume.path)


async def look(harness: Any, *mounts: Mount) -> dict[str, Any]:
    workload = harness.script(PROGRAM, "keeper", mounts=mounts)
    await harness.runtime.start(workload, FIRST)
    await harness.says_in_the_end(workload, b"{")
    return dict(json.loads((await harness.lines(workload))[-1]))


async def test_what_is_granted_for_reading_can_be_read_and_not_changed(keeper: Any) -> None:
    before = sorted((path.name, path.lstat().st_mtime) for path in folder(keeper).iterdir())
    found = await look(keeper, READ)
    assert found["read"] == "a note"
    assert found["seen"] == ["notes"]
    assert {found[name] for name in CHANGES} <= {"EROFS", "EPERM", "EACCES"}, found
    ((*options,),) = found["mounts"]
    assert "ro" in options
    assert sorted((path.name, path.lstat().st_mtime) for path in folder(keeper).iterdir()) == before


async def test_what_is_granted_for_writing_can_be_written(keeper: Any) -> None:
    found = await look(keeper, WRITE)
    assert [found[name] for name in ("create", "overwrite", "unlink")] == ["done"] * 3, found
    assert (folder(keeper) / "new.txt").read_text() == "mine"
    assert not (folder(keeper) / "old.txt").exists()
    if os.geteuid() == 0:
        made = (folder(keeper) / "new.txt").stat()
        assert made.st_uid >= 1_900_000_000
        assert made.st_gid == GROUP


@pytest.mark.parametrize("mount", [READ, WRITE])
async def test_nothing_leads_out_of_a_volume(keeper: Any, mount: Mount) -> None:
    found = await look(keeper, mount)
    assert found["read by link to the host"] == "ENOENT"  # a link leads where it says, inside
    assert found["read by relative link"] == "ENOENT"
    assert found["list above"] == ["notes"]
    assert found["mkdir beside"] in {"EROFS", "EACCES", "EPERM"}
    assert found["device"] in {"EROFS", "EACCES", "EPERM"}
    if os.geteuid() == 0:
        assert found["open device"] in {"EACCES", "EPERM"}, found


async def test_a_plugin_without_volumes_sees_none(keeper: Any) -> None:
    found = await look(keeper)
    assert found["mounts"] == []
    assert found["read"] == "ENOENT"
    assert found["seen"] in ([], "ENOENT")


async def test_a_folder_that_a_link_took_the_place_of_is_not_shown(keeper: Any) -> None:
    notes = folder(keeper)
    notes.rename(notes.with_name("moved"))
    notes.symlink_to("/etc")
    workload = keeper.script(PROGRAM, "keeper", mounts=(READ,))
    with pytest.raises(Unavailable, match="notes is not the folder it was"):
        await keeper.runtime.start(workload, FIRST)
    assert keeper.runtime.instances() == ()


async def test_a_volume_that_is_not_offered_is_not_shown(keeper: Any) -> None:
    mount = Mount("other", "/data/other", writable=False)
    with pytest.raises(Unavailable, match="volume other is not offered"):
        await keeper.runtime.start(keeper.script(PROGRAM, "keeper", mounts=(mount,)), FIRST)


async def test_a_volume_that_is_offered_for_reading_is_not_shown_for_writing(keeper: Any) -> None:
    (volume,) = keeper.volumes
    keeper.volumes = (HostVolume("notes", volume.path, writable=False),)
    await keeper.reopen()
    assert keeper.runtime.capabilities.volumes == {"notes for reading"}
    with pytest.raises(Unavailable, match="not for writing"):
        await keeper.runtime.start(keeper.script(PROGRAM, "keeper", mounts=(WRITE,)), FIRST)


async def test_every_volume_that_is_offered_can_be_asked_for(keeper: Any) -> None:
    here = keeper.runtime.capabilities
    assert here.volumes == {"notes for reading", "notes for writing"}
    (level,) = (entry.level for entry in here.controls if entry.control is Control.FILES)
    assert level is Level.ENFORCED


@pytest.mark.parametrize("host", ["process"], indirect=True)
async def test_a_sandbox_holds_a_volume_to_more_than_a_container(keeper: ProcessHarness) -> None:
    found = await look(keeper, WRITE)
    ((*options,),) = found["mounts"]
    assert {"nosuid", "nodev"} <= set(options)
    if os.geteuid() == 0:
        assert "noexec" in options
        assert found["run"] == "EACCES"


@pytest.mark.parametrize("host", ["process"], indirect=True)
async def test_a_command_beside_the_plugin_may_do_what_the_plugin_may(keeper: ProcessHarness) -> None:
    await look(keeper, WRITE)
    program = "open('/data/notes/by-command', 'w').write('x')"
    workload = keeper.script(PROGRAM, "keeper", mounts=(WRITE,))
    assert await keeper.enter(workload, PYTHON, "-c", program) == (0, b"", b"")
    assert (folder(keeper) / "by-command").exists()


@pytest.mark.parametrize("host", ["docker"], indirect=True)
async def test_a_container_is_a_member_of_no_group_but_its_volumes(keeper: DockerHarness) -> None:
    await look(keeper, READ)
    workload = keeper.script(PROGRAM, "keeper", mounts=(READ,))
    known = keeper.client.inspect_container(keeper.container(workload))["HostConfig"]
    assert known["GroupAdd"] == [str(folder(keeper).stat().st_gid)]
