"""Images that plugins name: pulled, pinned, and everything a registry or a disk can do about it."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import engine as engines
import pytest
import registry as registries
from harness import FIRST, SECONDS, wait_for
from harness_docker import DockerHarness

from crucible.errors import InvalidSource, Unavailable, Underway
from crucible.model.source import PullPolicy
from crucible.model.volume import HostVolume, Mount

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from crucible.model.workload import Workload

ALWAYS, ONCE, NEVER = PullPolicy.ALWAYS, PullPolicy.IF_NOT_PRESENT, PullPolicy.NEVER


class Registry:
    """A registry in an engine's own network, and what it holds."""

    def __init__(self, place: Path, engine: engines.Engine) -> None:
        self.place = place
        place.mkdir()
        self.tags: dict[str, str] = {}
        (place / "tags.json").write_text("{}")
        self.mode("")
        command = engine.inside("python3", registries.__file__, str(place))
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    async def ready(self) -> None:
        port = self.place / "port"
        await wait_for(lambda: port.exists() and port.read_text() != "")
        self.address = f"127.0.0.1:{port.read_text()}"

    def mode(self, word: str) -> None:
        """Set how it behaves from now on; a reader sees the old word or the new one."""
        new = self.place / "mode.new"
        new.write_text(word)
        new.rename(self.place / "mode")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def image(self, name: str, word: str, *, size: int = 0, **config: object) -> tuple[str, str]:
        """Offer an image of one small file; return its reference by tag and its digest."""
        noise = os.urandom(size)
        layer = archive({"word": f"{word}\n".encode(), "noise": noise})
        packed = gzip.compress(layer, mtime=0)
        text = json.dumps(
            {
                "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
                "os": "linux",
                "config": config,
                "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
            }
        ).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": registries.MANIFEST,
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "size": len(text),
                    "digest": digest(text),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                        "size": len(packed),
                        "digest": digest(packed),
                    }
                ],
            }
        ).encode()
        for blob in (packed, text, manifest):
            (self.place / digest(blob).replace(":", "-")).write_bytes(blob)
        self.tags[f"{name}:1"] = digest(manifest)
        (self.place / "tags.json").write_text(json.dumps(self.tags))
        return f"{self.address}/{name}:1", digest(manifest)


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
async def docker(tmp_path: Path, engine: engines.Engine) -> AsyncIterator[DockerHarness]:
    """A runtime that loses patience soon."""
    if engine._process is None:
        pytest.skip("runs a registry in the engine's network: unset DOCKER_HOST for a private engine")
    harness = DockerHarness(tmp_path, engine)
    usual = harness.settings
    harness.settings = lambda **changes: usual(**({"stale": 1.5, "retry": 0.5} | changes))  # type: ignore[method-assign]
    await harness.open()
    yield harness
    await harness.close()


@pytest.fixture
async def registry(tmp_path: Path, engine: engines.Engine, docker: DockerHarness) -> AsyncIterator[Registry]:
    del docker
    found = Registry(tmp_path / "registry", engine)
    try:
        await found.ready()
        yield found
    finally:
        found.end()


async def resolve(
    docker: DockerHarness, reference: str, policy: PullPolicy = ONCE, uid: str = "uid-a"
) -> tuple[str, str]:
    """Ask as a Plugin's loop does: again whenever it is rung, until it is there or cannot be."""
    images = docker.runtime.images  # type: ignore[attr-defined]
    async with asyncio.timeout(SECONDS):
        while True:
            before = docker.heard.count(uid)
            try:
                found: tuple[str, str] = await images.resolve(reference, policy, uid)
            except Underway:
                await wait_for(lambda: docker.heard.count(uid) > before)  # noqa: B023 - awaited at once
            else:
                return found


async def test_a_tag_is_pulled_once_and_becomes_a_digest(docker: DockerHarness, registry: Registry) -> None:
    reference, wanted = registry.image("once", "first")
    name = reference.rpartition(":")[0]
    assert await resolve(docker, reference) == (wanted, f"{name}@{wanted}")
    registry.image("once", "second")
    assert await resolve(docker, reference) == (wanted, f"{name}@{wanted}")
    assert await resolve(docker, f"{name}@{wanted}") == (wanted, f"{name}@{wanted}")


async def test_always_asks_the_registry_each_time_anew(docker: DockerHarness, registry: Registry) -> None:
    reference, first = registry.image("always", "first")
    assert (await resolve(docker, reference))[0] == first
    _, second = registry.image("always", "second")
    found = await asyncio.gather(*(resolve(docker, reference, ALWAYS, f"uid-{n}") for n in range(3)))
    assert {found_digest for found_digest, _ in found} == {second}
    _, third = registry.image("always", "third")
    assert (await resolve(docker, reference, ALWAYS))[0] == third


async def test_never_asks_nobody(docker: DockerHarness, registry: Registry) -> None:
    reference, _ = registry.image("never", "first")
    with pytest.raises(InvalidSource, match="imagePullPolicy is Never: load or pull it"):
        await resolve(docker, reference, NEVER)


async def test_progress_is_said(docker: DockerHarness, registry: Registry) -> None:
    reference, wanted = registry.image("slow", "first", size=4 << 20)
    registry.mode("slow")
    images = docker.runtime.images  # type: ignore[attr-defined]
    said: set[str] = set()
    async with asyncio.timeout(SECONDS):
        while not any("% of 4.0 MiB" in words for words in said):
            with pytest.raises(Underway) as raised:
                await images.resolve(reference, ONCE, "uid-a")
            said.add(str(raised.value))
            await asyncio.sleep(0.02)
    await wait_for(lambda: "uid-a" in docker.heard)
    registry.mode("")
    assert (await resolve(docker, reference))[0] == wanted


@pytest.mark.parametrize(
    ("mode", "kind", "words"),
    [
        ("denies", InvalidSource, "needs credentials: check the name"),
        ("hangs", Unavailable, "hangs: nothing came for 1.5 s"),
        ("lies", InvalidSource, "not what its digest names"),
    ],
)
async def test_a_registry_that_misbehaves_is_said_and_tried_again(
    docker: DockerHarness, registry: Registry, mode: str, kind: type[Exception], words: str
) -> None:
    reference, wanted = registry.image(f"bad-{mode}", "first", size=1 << 20)
    by_digest = f"{reference.rpartition(':')[0]}@{wanted}"
    registry.mode(mode)
    with pytest.raises(kind, match=words):
        await resolve(docker, by_digest)
    other = docker.workload("stay", name="other")
    await docker.runtime.start(other, FIRST)
    await docker.says(other, b"staying")
    registry.mode("")
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                assert (await resolve(docker, by_digest))[0] == wanted
            except (InvalidSource, Unavailable):
                await asyncio.sleep(0.05)
            else:
                break


async def test_a_private_registry_lets_in_whom_a_credential_helper_knows(
    docker: DockerHarness, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    reference, wanted = registry.image("private", "first")
    registry.mode("private")
    with pytest.raises(InvalidSource, match="docker login"):
        await resolve(docker, reference)
    known = json.dumps({"ServerURL": "", "Username": registries.USER, "Secret": registries.WORD})
    helper = tmp_path / "docker-credential-chest"
    helper.write_text(f"#!/bin/sh\nread server\ntest $server = {registry.address} && echo '{known}'\n")
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {registry.address: "chest"}}))
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                assert (await resolve(docker, reference))[0] == wanted
            except InvalidSource:
                await asyncio.sleep(0.05)
            else:
                break


async def test_a_registry_that_breaks_off_is_said(docker: DockerHarness, registry: Registry) -> None:
    reference, wanted = registry.image("broken", "first", size=1 << 20)
    registry.mode("breaks")
    images = docker.runtime.images  # type: ignore[attr-defined]
    said = ""
    async with asyncio.timeout(SECONDS):
        while "the registry broke off, it is tried again" not in said:
            with pytest.raises(Underway) as raised:
                await images.resolve(reference, ONCE, "uid-a")
            said = str(raised.value)
            await asyncio.sleep(0.02)
    registry.mode("")
    assert (await resolve(docker, reference))[0] == wanted


async def test_what_is_not_there_is_named(docker: DockerHarness, registry: Registry) -> None:
    with pytest.raises(InvalidSource, match="does not exist in its registry: check name and tag"):
        await resolve(docker, f"{registry.address}/absent:1")
    with pytest.raises(InvalidSource, match="cannot read the name"):
        await resolve(docker, f"{registry.address}/UPPER:1")
    registry.end()
    with pytest.raises(Unavailable, match="does not answer"):
        await resolve(docker, f"{registry.address}/gone:1")


async def test_an_image_removed_under_a_stopped_plugin_is_pulled_again(
    docker: DockerHarness, registry: Registry
) -> None:
    reference, _ = registry.image("gone", "removed", Cmd=["/x"])
    found, image = await resolve(docker, reference)
    workload = whole(docker, image, found)
    await docker.runtime.start(workload, FIRST)
    await docker.runtime.remove(workload.plugin_uid, FIRST)
    docker.client.remove_image(docker.client.inspect_image(image)["Id"], force=True)
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                await docker.runtime.start(workload, FIRST)
            except (Underway, Unavailable):
                await asyncio.sleep(0.05)
            else:
                break
    assert has(docker, image)


def has(docker: DockerHarness, reference: str) -> bool:
    return any(
        reference in (*(entry["RepoTags"] or ()), *(entry["RepoDigests"] or ()))
        for entry in docker.client.images()
    )


def whole(docker: DockerHarness, image: str, source: str, *entrypoint: str) -> Workload:
    workload = docker.workload("stay", name="whole", type="service", image=image, source=source)
    return replace(workload, entrypoint=entrypoint)


LOOKS = """\
import json, os, subprocess, time
mounts = [line.split() for line in open("/proc/mounts")]
print(json.dumps({
    "ids": [os.getuid(), os.geteuid(), os.getgid(), sorted(set(os.getgroups()) - {os.getgid()})],
    "data": [kind + " " + options for _, place, kind, options, *_ in mounts if place == "/data"],
    "escalated": subprocess.run(
        ["/setuid", "-c", "import os; print(os.geteuid())"], capture_output=True, text=True
    ).stdout.strip(),
}), flush=True)
time.sleep(9999)
"""


async def test_what_a_hostile_image_says_of_itself_does_not_count(docker: DockerHarness) -> None:
    uid = docker.settings().first_uid
    dockerfile = """\
FROM crucible/python:0.1.0
COPY passwd group /etc/
COPY looks.py /looks.py
COPY python /setuid
USER root
ENTRYPOINT ["/usr/bin/false"]
CMD ["-c"]
VOLUME /data
HEALTHCHECK --interval=1s CMD ["/usr/bin/python3", "-c", "open('/tmp/checked', 'w')"]
LABEL dev.crucible.control-plane=other dev.crucible.role=relay dev.crucible.slot=7-7
"""
    program = Path("/usr/bin/python3").resolve()
    files = {
        "Dockerfile": (dockerfile.encode(), 0o644),
        "passwd": (f"root:x:0:0::/:/x\n{uid}:x:0:0::/:/x\nevil:x:{uid}:0::/:/x\n".encode(), 0o644),
        "group": (f"root:x:0:evil,{uid}\nstaff:x:50:evil,{uid}\n".encode(), 0o644),
        "looks.py": (LOOKS.encode(), 0o644),
        "python": (program.read_bytes(), 0o4755),
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, (data, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    out.seek(0)
    tag = f"hostile-{docker.control_plane}"
    said = list(docker.client.build(fileobj=out, custom_context=True, tag=tag, decode=True, rm=True))
    assert not any("error" in message for message in said), said
    found, image = await resolve(docker, tag, NEVER)
    python = docker.client.inspect_image("crucible/python:0.1.0")["Config"]["Labels"]
    interpreter = json.loads(python["dev.crucible.entrypoint"])[0]
    workload = whole(docker, image, found, interpreter, "/looks.py")
    await docker.runtime.start(workload, FIRST)
    await docker.says_in_the_end(workload, b"{")
    (line,) = await docker.lines(workload)
    seen = json.loads(line)
    assert seen["ids"] == [uid, uid, uid, []]
    assert seen["escalated"] in {"", str(uid)}
    (data,) = seen["data"]
    assert data.startswith("tmpfs ")
    assert "size=" in data
    assert all(word in data for word in ("nosuid", "nodev"))
    state = docker.client.inspect_container(docker.container(workload))
    assert "Health" not in state["State"]
    assert state["Config"]["Labels"]["dev.crucible.role"] == "instance"
    assert state["Mounts"] == [mount for mount in state["Mounts"] if mount["Type"] == "bind"]
    await docker.reopen()
    assert docker.instance(workload).alive


async def test_an_image_that_names_a_group_by_our_number_is_refused(
    docker: DockerHarness,
) -> None:
    """Engines look a group up by name first: a plugin would be a member of the number behind it."""
    group = f"{docker.settings().first_uid}:x:0:\n".encode()
    tag = f"group-{docker.control_plane}"
    dockerfile = b"FROM crucible/python:0.1.0\nCOPY group /etc/\n"
    context = io.BytesIO(archive({"Dockerfile": dockerfile, "group": group}))
    list(docker.client.build(fileobj=context, custom_context=True, tag=tag, decode=True, rm=True))
    found, image = await resolve(docker, tag, NEVER)
    ended = await docker.run(whole(docker, image, found, "/usr/bin/env"))
    assert ended.exit is not None
    assert "names a group by a number: rename that group" in ended.exit.problem


async def test_an_image_with_a_volume_in_a_folder_of_the_host_is_refused(
    docker: DockerHarness, tmp_path: Path
) -> None:
    tag = f"nested-{docker.control_plane}"
    context = io.BytesIO(archive({"Dockerfile": b"FROM crucible/python:0.1.0\nVOLUME /data/notes/cache\n"}))
    list(docker.client.build(fileobj=context, custom_context=True, tag=tag, decode=True, rm=True))
    found, image = await resolve(docker, tag, NEVER)
    notes = tmp_path / "notes"
    notes.mkdir()
    docker.volumes = (HostVolume("notes", notes, writable=True),)
    await docker.reopen()
    workload = replace(
        whole(docker, image, found, "/usr/bin/env"), mounts=(Mount("notes", "/data/notes", writable=True),)
    )
    ended = await docker.run(workload)
    assert ended.exit is not None
    assert "VOLUME /data/notes/cache lies in /data/notes" in ended.exit.problem
    assert list(notes.iterdir()) == []


@pytest.fixture
def small() -> Iterator[engines.Engine]:
    """An engine whose disk is small."""
    why = engines.missing()
    if why or os.environ.get("DOCKER_HOST"):
        pytest.skip(why or "fills a disk: unset DOCKER_HOST for a private engine")
    with engines.private_engine(disk="24m") as engine:
        yield engine


async def test_a_full_disk_is_said(tmp_path: Path, small: engines.Engine) -> None:
    harness = DockerHarness(tmp_path, small)
    await harness.open()
    place = Registry(tmp_path / "registry", small)
    try:
        await place.ready()
        reference, _ = place.image("big", "first", size=64 << 20)
        with pytest.raises(Unavailable, match="disk of the Docker engine is full: free some"):
            await resolve(harness, reference)
    finally:
        place.end()
        await harness.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "docker-pull"]
