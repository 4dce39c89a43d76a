from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crucible.errors import Unavailable
from crucible.model.workload import Slot
from crucible.runtimes.docker.memory import Memory, file_system_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOT = Slot(0, 1)
MOUNTS = """\
21 1 8:1 / / rw - ext4 /dev/root rw
22 21 0:5 / /dev rw - devtmpfs udev rw
23 22 0:6 / /dev/shm rw - tmpfs tmpfs rw
24 21 0:7 / /run rw shared:5 - tmpfs tmpfs rw
25 24 0:8 / /run rw - ext4 /dev/sdb rw
"""
HERE = Path("/dev/shm")
NEEDS_MEMORY = pytest.mark.skipif(
    file_system_of(HERE, Path("/proc/self/mountinfo").read_text()) != "tmpfs",
    reason="/dev/shm is no tmpfs here: mount one",
)


@pytest.fixture
def memory() -> Iterator[Memory]:
    name = f"test-{os.getpid()}"
    yield Memory(HERE, name)
    Memory(HERE, name).sweep(())
    assert not (HERE / f"crucible-{name}").exists()


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/dev/shm/x", "tmpfs"), ("/dev/shm2", "devtmpfs"), ("/srv", "ext4"), ("/run", "ext4")],
)
def test_the_file_system_of_a_path_is_that_of_the_last_mount_above_it(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS) == kind


@NEEDS_MEMORY
def test_what_is_written_is_for_one_user_behind_a_private_folder(memory: Memory) -> None:
    folder = memory.write("uid-1", SLOT, 1_900_000_001, {"api/token": b"1", "api/user": b"2", "db/x": b""})
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        *("api/token", "api/user", "db/x")
    ]
    assert folder.parent.parent.stat().st_mode & 0o777 == 0o700
    file = (folder / "api/token").stat()
    if os.geteuid() == 0:
        assert (file.st_uid, file.st_mode & 0o777) == (1_900_000_001, 0o400)
        assert folder.stat().st_mode & 0o777 == 0o500
    else:
        assert file.st_mode & 0o777 == 0o444
    memory.write("uid-1", SLOT, 1_900_000_001, {"api/token": b"3"})
    assert [path.read_bytes() for path in folder.rglob("*") if path.is_file()] == [b"3"]


@NEEDS_MEMORY
def test_nothing_is_left_of_what_nobody_runs_with(memory: Memory) -> None:
    first = memory.write("uid-1", SLOT, 1, {"api/token": b"1"})
    second = memory.write("uid-2", SLOT, 2, {"api/token": b"2"})
    memory.sweep({("uid-2", str(SLOT))})
    assert not first.parent.exists()
    assert second.exists()
    memory.discard("uid-2", SLOT)
    memory.discard("uid-2", SLOT)
    assert not second.parent.parent.exists()


@NEEDS_MEMORY
def test_a_folder_that_someone_else_put_there_is_not_used(memory: Memory, tmp_path: Path) -> None:
    top = HERE / f"crucible-test-{os.getpid()}"
    (tmp_path / "uid-1/0-1").mkdir(parents=True)
    top.symlink_to(tmp_path)
    try:
        memory.sweep(())
        memory.discard("uid-1", SLOT)
        assert (tmp_path / "uid-1/0-1").is_dir()
        with pytest.raises(Unavailable, match="not a private folder"):
            memory.write("uid-1", SLOT, 1, {"api/token": b"1"})
    finally:
        top.unlink()
    top.mkdir(mode=0o755)
    with pytest.raises(Unavailable, match="not a private folder"):
        memory.write("uid-1", SLOT, 1, {"api/token": b"1"})
    top.rmdir()


def test_a_disk_is_no_memory() -> None:
    memory = Memory(Path("/proc"), "x")
    assert "no file system in memory" in memory.problem
    with pytest.raises(Unavailable):
        memory.write("uid-1", SLOT, 1, {})
