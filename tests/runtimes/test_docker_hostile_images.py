"""Images made to harm who runs them, and the plugins beside."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness import FIRST

from crucible.errors import InvalidSource
from crucible.model.source import PullPolicy
from crucible.model.volume import HostVolume, Mount

if TYPE_CHECKING:
    from harness_docker import DockerHarness

    from crucible.model.workload import Workload

BASE = "crucible/python:0.1.0"
STAYS = "import time; time.sleep(9999)"


def build(docker: DockerHarness, name: str, lines: str, *, base: str = BASE, **files: bytes) -> str:
    """Build an image, and return its tag."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path, data in {"Dockerfile": f"FROM {base}\n{lines}\n".encode(), **files}.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    out.seek(0)
    tag = f"{name}-{docker.control_plane}"
    said = list(
        docker.client.build(fileobj=out, custom_context=True, encoding="gzip", tag=tag, decode=True, rm=True)
    )
    assert not any("error" in message for message in said), said
    return tag


async def resolved(docker: DockerHarness, tag: str) -> tuple[str, str]:
    images = docker.runtime.images  # type: ignore[attr-defined]
    found: tuple[str, str] = await images.resolve(tag, PullPolicy.NEVER, "uid-a")
    return found


async def plugin(docker: DockerHarness, tag: str, program: str) -> Workload:
    """Return a plugin that is an image, and runs a program in Python."""
    source, image = await resolved(docker, tag)
    workload = docker.workload("stay", name=tag.partition("-")[0], type="service", image=image, source=source)
    labels = docker.client.inspect_image(BASE)["Config"]["Labels"]
    interpreter = json.loads(labels["dev.crucible.entrypoint"])[0]
    return replace(workload, entrypoint=(interpreter, "-c", program))


async def test_an_image_that_says_itself_how_it_ends_is_refused(docker: DockerHarness) -> None:
    """Engines put a container's labels over what they tell of an event."""
    with pytest.raises(InvalidSource, match="LABEL exitCode hides how its containers end: remove it"):
        await resolved(docker, build(docker, "liar", "LABEL exitCode=0"))


async def test_an_image_with_labels_without_end_is_refused(docker: DockerHarness) -> None:
    """All of them are in every list and every event of its containers."""
    lines = "\n".join(f'LABEL l{n}="{"x" * 8192}"' for n in range(9))
    with pytest.raises(InvalidSource, match="its labels have more than 65536 bytes"):
        await resolved(docker, build(docker, "wordy", lines))


async def test_a_containers_own_word_for_its_end_is_no_outage(docker: DockerHarness) -> None:
    """Somebody else's container, with a mark of ours and a code that is no number."""
    workload = docker.workload("stay")
    await docker.runtime.start(workload, FIRST)
    before = docker.runtime._connection._task  # type: ignore[attr-defined]
    turns: list[str] = []
    docker.runtime._connection._turned = lambda: turns.append(docker.runtime.outage)  # type: ignore[attr-defined]
    labels = {"dev.crucible.control-plane": docker.control_plane, "dev.crucible.role": "relay"}
    for number, word in enumerate(("--5", "9" * 5000, "²", "")):
        made = docker.client.create_container(
            BASE,
            ["-c", "raise SystemExit(3)"],
            entrypoint=["python3"],
            name=f"by-hand-{number}-{docker.control_plane}",
            labels={**labels, "exitCode": word},
        )
        docker.client.start(made["Id"])
        docker.client.wait(made["Id"])
    await docker.runtime.kill(workload.plugin_uid, FIRST)
    assert docker.instance(workload).exit is not None
    assert not before.done()
    assert turns == []


async def test_an_image_gives_its_containers_no_doors(docker: DockerHarness) -> None:
    tag = build(docker, "doors", "LABEL dev.crucible.doors=bus,egress")
    workload = await plugin(docker, tag, STAYS)
    await docker.runtime.start(workload, FIRST)
    await docker.reopen()
    assert docker.instance(workload).alive
    assert docker.runtime.doorways() == ()


async def test_no_image_makes_us_read_a_folder_for_its_list_of_groups(docker: DockerHarness) -> None:
    noise = bytes(32 << 20)
    tag = build(docker, "folder", "COPY noise /etc/group/noise", base="scratch", noise=noise)
    workload = await plugin(docker, tag, STAYS)
    tracemalloc.start()
    try:
        ended = await docker.run(workload)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 8 << 20
    assert ended.exit is not None
    assert "/etc/group is no file, or too large to be looked at" in ended.exit.problem


async def test_no_volume_of_an_image_lies_in_a_granted_one_by_a_link(docker: DockerHarness) -> None:
    """The engine would make it there, as root, while others may put links in its way."""
    notes = Path(tempfile.mkdtemp(prefix="crucible-volume-"))
    try:
        docker.volumes = (HostVolume("notes", notes.resolve(), writable=True),)
        await docker.reopen()
        tag = build(
            docker, "linked", "ADD tree.tar /\nVOLUME /x/cache", **{"tree.tar": link("x", "/data/notes")}
        )
        workload = await plugin(docker, tag, "")
        mounts = (Mount("notes", "/data/notes", writable=True),)
        ended = await docker.run(replace(workload, mounts=mounts))
        assert ended.exit is not None
        assert "VOLUME /x/cache is /data/notes/cache, by a link, and lies in" in ended.exit.problem
        assert list(notes.iterdir()) == []
    finally:
        shutil.rmtree(notes)


def link(name: str, target: str) -> bytes:
    """Return an archive that holds a link and no more."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        tar.addfile(entry)
    return out.getvalue()
