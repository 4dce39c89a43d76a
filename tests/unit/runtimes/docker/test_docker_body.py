"""What an engine is asked for: golden bodies, and what must never be in one."""

from __future__ import annotations

import json
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crucible.core.scratch import scratch_sizes
from crucible.model.volume import Mount
from crucible.model.workload import Limits, Slot, Workload
from crucible.runtimes.docker.body import Image, Setting, body, overlap
from crucible.runtimes.docker.labels import labels_of
from crucible.runtimes.volumes import Shown

GOLDEN = Path(__file__).parent / "golden"
MIB = 1 << 20
LIMITS = Limits(cpu=500, memory=64 * MIB, pids=16, disk=8 * MIB, open_files=64)
PYTHON = Image("sha256:aa", before=("/usr/bin/python3", "-u"), env=(("PYTHONDONTWRITEBYTECODE", "1"),))
FILES = Workload(
    namespace="default",
    plugin="hello",
    plugin_uid="uid-1",
    type="python",
    entrypoint=("main.py", "--loud"),
    env=(("MODE", "fast"),),
    config='{"a":1}',
    source="sha256:55",
    limits=LIMITS,
    isolation="container",
    grace=5.0,
    restart="",
)
WHOLE = replace(FILES, type="service", entrypoint=(), source="sha256:77", image="repo/x@sha256:77")
SLOT = Slot(0, 1)
SETTING = Setting(
    instance="hello-0-1",
    labels=labels_of("plane", FILES, SLOT, 1_900_000_001, 1000.25),
    uid=1_900_000_001,
    seccomp='{"profile":"here"}',
    config="/state/instances/uid-1/0-1/config.json",
    source="/state/sources/55",
    names="/state/hosts",
)
KINDS = {
    "files": (FILES, PYTHON, SETTING),
    "image": (WHOLE, Image("sha256:77", volumes=("/data", "/var/lib/x")), replace(SETTING, source="")),
    "listening": (
        replace(FILES, listen=(8080,)),
        PYTHON,
        replace(SETTING, network="crucible-plane-uid-1", route="0-1"),
    ),
    "secrets": (
        replace(FILES, secrets=(("api", "1"),)),
        PYTHON,
        replace(SETTING, secrets="/memory/uid-1/0-1"),
    ),
    "volumes": (
        FILES,
        PYTHON,
        replace(
            SETTING,
            volumes=(
                Shown(Path("/srv/notes"), "/data/notes", writable=True, group=2000),
                Shown(Path("/srv/maps"), "/data/maps", writable=False, group=None),
            ),
        ),
    ),
    "vm": (replace(FILES, isolation="vm"), PYTHON, replace(SETTING, engine_runtime="runsc")),
}
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PAIRS = st.lists(st.tuples(WORDS, WORDS), max_size=4).map(tuple)
WORKLOADS = st.builds(
    Workload,
    namespace=WORDS,
    plugin=st.text(string.ascii_lowercase + string.digits + "-.", min_size=1, max_size=80),
    plugin_uid=WORDS,
    type=st.sampled_from(["python", "javascript", "binary", "wasm", "rune", "service"]),
    entrypoint=st.lists(WORDS, min_size=1, max_size=4).map(tuple),
    env=PAIRS,
    config=WORDS,
    source=WORDS,
    limits=st.builds(
        Limits,
        cpu=st.integers(1, 64000),
        memory=st.integers(1, 1 << 40),
        pids=st.integers(1, 1 << 20),
        disk=st.integers(0, 1 << 40),
        open_files=st.integers(1, 1 << 20),
    ),
    isolation=st.sampled_from(["process", "container", "vm"]),
    grace=st.just(5.0),
    restart=WORDS,
    image=st.one_of(st.just(""), WORDS),
)
IMAGES = st.builds(
    Image,
    id=WORDS,
    before=st.lists(WORDS, max_size=3).map(tuple),
    env=PAIRS,
    volumes=st.lists(WORDS.map(lambda word: f"/v{word}"), max_size=4, unique=True).map(tuple),
)
OPENINGS = (
    "Binds", "CapAdd", "Devices", "DeviceRequests", "DeviceCgroupRules", "GroupAdd", "VolumesFrom", "Links",
    "PidMode", "UTSMode", "UsernsMode", "PortBindings", "PublishAllPorts", "ExtraHosts", "MaskedPaths",
    "ReadonlyPaths", "OomKillDisable", "Cgroup", "CgroupParent",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_is_what_it_was(kind: str) -> None:
    text = json.dumps(body(*KINDS[kind]), indent=2, sort_keys=True) + "\n"
    assert text == (GOLDEN / f"{kind}.json").read_text()


@given(workload=WORKLOADS, image=IMAGES, network=st.sampled_from(["", "crucible-plane-uid"]))
def test_no_workload_gets_anything_of_the_host(workload: Workload, image: Image, network: str) -> None:
    setting = replace(SETTING, network=network, source="" if workload.image else "/state/sources/55")
    found = body(workload, image, setting)
    host: dict[str, Any] = found["HostConfig"]
    assert not set(OPENINGS) & set(host)
    assert not {"Volumes", "ExposedPorts"} & set(found)
    assert (host["Privileged"], host["CapDrop"], host["ReadonlyRootfs"]) == (False, ["ALL"], True)
    assert host["SecurityOpt"] == ["no-new-privileges", f"seccomp={SETTING.seccomp}"]
    assert host["NetworkMode"] == (network or "none")
    assert found.get("NetworkDisabled", False) == (not network)
    assert (host["IpcMode"], host["CgroupnsMode"]) == ("private", "private")
    assert found["User"] == "1900000001:1900000001"
    assert {mount["Source"] for mount in host["Mounts"]} <= {SETTING.config, SETTING.source, SETTING.names}
    assert all(mount["ReadOnly"] and mount["Type"] == "bind" for mount in host["Mounts"])
    assert all("nosuid,nodev" in options for options in host["Tmpfs"].values())
    assert "docker.sock" not in json.dumps({key: value for key, value in host.items() if key != "Tmpfs"})
    assert host["Memory"] == host["MemorySwap"] > 0
    assert host["PidsLimit"] > 0


@given(plugin=st.text(string.ascii_lowercase + string.digits + "-.", max_size=80))
def test_a_host_name_is_one(plugin: str) -> None:
    name = body(FILES, PYTHON, replace(SETTING, instance=f"{plugin}-0-1"))["Hostname"]
    assert 0 < len(name) <= 63
    assert name == name.strip("-.")


@given(disk=st.integers(1, 1 << 40), volumes=st.integers(0, 16))
def test_all_scratch_space_together_is_the_limit(disk: int, volumes: int) -> None:
    each, shared = scratch_sizes(replace(LIMITS, disk=disk), 1 + volumes)
    assert min(each, shared) >= 1
    assert each * (1 + volumes) + shared <= disk + 2 + volumes


def test_the_manifests_variables_prevail() -> None:
    found = body(replace(FILES, env=(("PATH", "/mine"), ("HOME", "/plugin"))), PYTHON, SETTING)["Env"]
    assert found.index("PATH=/mine") > found.index("PATH=/usr/local/bin:/usr/bin:/bin")
    assert found.index("HOME=/plugin") > found.index("HOME=/tmp")


@pytest.mark.parametrize(
    ("volume", "says"),
    [
        ("/data/notes", "VOLUME /data/notes is /data/notes"),
        ("/data/notes/cache", "VOLUME /data/notes/cache lies in /data/notes"),
        ("/secrets/api", "the Secrets"),
        ("/run/crucible", "the doors"),
        ("/data", ""),
        ("/data/notes2", ""),
        ("/var/lib/x", ""),
    ],
)
def test_a_volume_of_an_image_does_not_lie_in_what_is_shown_of_the_host(volume: str, says: str) -> None:
    workload = replace(WHOLE, mounts=(Mount("notes", "/data/notes", writable=True),))
    found = overlap(workload, Image("sha256:77", volumes=("/cache", volume)))
    assert says in found
    assert bool(found) == bool(says)
    assert ("capabilities.files, notes" in found) == ("/data/notes" in says)
