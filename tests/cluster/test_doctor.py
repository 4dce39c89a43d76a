"""``crucible doctor --kubernetes``: without nodes its pods are played, the suite's in a real sandbox."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ground import DEADLINE, RealGround

from crucible.breakout import pods
from crucible.breakout.trial import FIRST
from crucible.errors import CrucibleError
from crucible.runtimes.process import ProcessRuntime, ProcessSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from ground import Ground, LocalGround

DOCTORS = {"labelSelector": f"app.kubernetes.io/managed-by={pods.MANAGER}"}
PROGRAM = str(Path(sys.executable).with_name("crucible"))


class Node:
    """Plays the pods of an examination once they run: what each prints, and how it ends.

    Attributes:
        said: by the part of a pod's name that says what it does, what it prints.
    """

    def __init__(self, local: LocalGround) -> None:
        self.local = local
        self.seen: set[str] = set()
        self.said: dict[str, list[bytes]] = {
            "bait": [b"listening", b"came 127.8.0.2"],
            "visitor": [b"reached"],
            "memory": [b"allowed"],
            "share": [b"allowed", b"share 0.203"],
            "disk": [b"allowed", b"wrote 64 MiB"],
        }

    async def run(self) -> None:
        while True:
            for pod in (await self.local.client.get(self.local.path("pods"), DOCTORS))["items"]:
                name = pod["metadata"]["name"]
                if name not in self.seen and pod.get("status", {}).get("phase") == "Running":
                    self.seen.add(name)
                    await self._play(pod, name.rpartition("-")[2])
            await asyncio.sleep(0.05)

    async def _play(self, pod: dict[str, Any], part: str) -> None:
        name = pod["metadata"]["name"]
        if part == "suite" and part not in self.said:
            config = await self.local.client.get(self.local.path("configmaps", name))
            self.said[part] = await sandboxed(config["data"])
        self.local.output.lines[name] = self.said[part]
        if part == "disk":
            await self.local.kubelet.take(pod, "Evicted", "its volume tmp is over its limit")
        elif part not in {"bait", "suite"}:
            oom = part == "memory"
            await self.local.kubelet.finish(pod, 137 if oom else 0, "OOMKilled" if oom else "")


async def sandboxed(data: Mapping[str, str]) -> list[bytes]:
    """Return what the suite's program says in a sandbox of this host, from a pod's own ConfigMap."""
    with tempfile.TemporaryDirectory(prefix="crucible-node-") as name:
        place = Path(name)
        place.chmod(0o711)
        source = place / "source"
        source.mkdir(mode=0o755)
        names = sorted(pods.programs(pods.plugin("main.py")))
        for number, file in enumerate(names):
            (source / file).write_text(data[f"f{number}"])
        runtime = ProcessRuntime(
            ProcessSettings(place / "process", control_plane=f"node-{place.name[-4:]}"), lambda _: source
        )
        try:
            await runtime.open(lambda _: None)
        except CrucibleError as error:
            pytest.skip(f"no sandbox can be made here: {error}")
        asked = pods.plugin("main.py", data["config.json"])
        try:
            await runtime.start(asked, FIRST)
            lines = []
            async with asyncio.timeout(DEADLINE):
                async for line in runtime.logs(asked.plugin_uid, FIRST, tail=None, follow=True):
                    lines.append(line.text)
                    if line.text.startswith(b'{"summary"'):
                        break
            return lines
        finally:
            await runtime.remove(asked.plugin_uid, FIRST)
            await runtime.close()


@pytest.fixture
async def node(local: LocalGround) -> AsyncIterator[Node]:
    found = Node(local)
    playing = asyncio.create_task(found.run())
    yield found
    playing.cancel()
    with suppress(asyncio.CancelledError):
        await playing


async def doctor(ground: Ground, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run it; return its exit status, what it found, and what it said besides."""
    process = await asyncio.create_subprocess_exec(
        *(PROGRAM, "doctor", "--kubernetes", "--json", "--kubeconfig", str(ground.kubeconfig())),
        *("--namespace", ground.namespace, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert out, err.decode()
    return process.returncode or 0, json.loads(out)["runtimes"]["kubernetes"], err.decode()


def broken(found: dict[str, Any]) -> dict[str, list[str]]:
    """Return the controls that are not well, each with what was got through."""
    return {
        each["control"]: [f"{one['name']}: {one['detail']}" for one in each["failures"]]
        for each in found["controls"]
        if not each["ok"]
    }


async def left_behind(ground: Ground) -> list[str]:
    found = []
    for plural in ("pods", "configmaps", "networkpolicies"):
        items = (await ground.client.get(ground.path(plural), DOCTORS))["items"]
        found += [f"{plural}/{each['metadata']['name']}" for each in items]
    return found


async def test_a_cluster_that_holds_is_found_to_and_nothing_is_left(local: LocalGround, node: Node) -> None:
    local.start()
    await local.until(partial(_leads, local))
    code, found, said = await doctor(local)
    assert set(broken(found)) == {"pids", "openFiles"}, (broken(found), said)
    tried = {each["control"]: each["tried"] for each in found["controls"]}
    fixed = (
        "identity",
        "namespaces",
        "rootFilesystem",
        "privileges",
        "systemCalls",
        "network",
        "cpu",
        "memory",
    )
    assert all(tried[control] for control in (*fixed, "disk")), tried
    assert tried["systemCalls"] > 250
    assert code == 1, "pids and openFiles are weaker in every pod"
    parts = {name.rpartition("-")[2] for name in node.seen}
    assert parts == {"bait", "visitor", "suite", "memory", "share", "disk"}

    async def nothing() -> bool:
        return not await left_behind(local)

    await local.until(nothing)
    assert "doctor" not in local.log(), "the operator has nothing to do with it"


async def test_what_does_not_hold_is_named(local: LocalGround, node: Node) -> None:
    node.said |= {
        "bait": [b"listening", b"came 127.8.0.2", b"came 127.8.0.3"],
        "share": [b"allowed", b"share 1.97"],
        "suite": attempts({"reach a pod of the cluster": "network", "call bpf": "systemCalls"}),
    }
    code, found, _ = await doctor(local)
    got = broken(found)
    assert code == 1
    assert "reach a pod of the cluster: got there" in got["network"]
    assert any(each.startswith("only who may came to the pod: came: ") for each in got["network"])
    assert got["cpu"] == [
        "take processor time without end: took 1.97 of a processor, where 0.20 was the limit"
    ]
    assert "call bpf: got there" in got["systemCalls"]


async def test_a_suite_that_is_cut_short_is_no_proof(local: LocalGround, node: Node) -> None:
    node.said["suite"] = attempts({"call bpf": "systemCalls"})[:1]
    node.local.kubelet.fates = {}
    running = asyncio.create_task(doctor(local))

    async def cut() -> bool:
        for pod in (await local.client.get(local.path("pods"), DOCTORS))["items"]:
            if pod["metadata"]["name"].endswith("-suite") and pod["metadata"]["name"] in node.seen:
                await local.kubelet.finish(pod, 1)
                return True
        return False

    await local.until(cut)
    code, found, _ = await running
    assert code == 1
    assert found["controls"] == []
    assert "did not come to its end" in found["findings"][0]["detail"]
    await local.until(partial(_empty, local))


async def test_what_the_cluster_refuses_is_said(local: LocalGround) -> None:
    local.faults.answer = lambda verb, path: (
        (403, "no pods for you") if (verb, path[-5:]) == ("POST", "/pods") else None
    )
    code, found, _ = await doctor(local)
    assert code == 1
    assert "no pods for you" in found["findings"][0]["detail"]


async def test_without_trying_it_only_claims(local: LocalGround) -> None:
    code, found, _ = await doctor(local, "--quick")
    assert code == 1
    assert {each["untried"] for each in found["controls"]} == {"the suite was not run"}
    assert not await left_behind(local)


def attempts(got_through: dict[str, str]) -> list[bytes]:
    """Return what a suite says in which these attempts got there, and nothing was read as it should be."""
    lines = [
        {
            "attempt": name,
            "control": control,
            "denied": False,
            "detail": "got there",
            "allowed": True,
            "instead": "",
        }
        for name, control in got_through.items()
    ]
    limits = {name: ["0", "0"] for name in ("core", "memlock", "msgqueue", "nice", "nofile", "rtprio")}
    kinds = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid", "NSpid")
    readings = {
        "status": {key: ["0"] for key in kinds},
        "mounts": [],
        "interfaces": [],
        "devices": [],
        "processes": [],
        "cgroups": [],
        "session": 1,
        "limits": limits,
        "scratch": {"/tmp": 0, "/dev/shm": 0},
    }
    said = [*lines, {"readings": readings}, {"summary": {"attempts": len(lines), "denied": 0}}]
    return [json.dumps(one).encode() for one in said]


async def _leads(local: LocalGround) -> bool:
    return "leads" in local.log()


async def _empty(local: LocalGround) -> bool:
    return not await left_behind(local)


@pytest.mark.cluster
async def test_a_real_cluster_is_examined(tmp_path: Path) -> None:
    async with RealGround(tmp_path) as ground:
        given = {"--images": "CRUCIBLE_IMAGES", "--image-tag": "CRUCIBLE_IMAGE_TAG"}
        words = [
            word for name, key in given.items() if os.environ.get(key) for word in (name, os.environ[key])
        ]
        _, found, said = await doctor(ground, *words)
        assert found["controls"], f"{found['findings']}\n{said}\n{await ground.report()}"
        got = broken(found)
        weak = {"pids", "openFiles"}
        if "network" in got:
            assert any("a pod of the cluster" in one for one in got["network"]), got
            weak.add("network")  # found by trying: this cluster's network does not enforce NetworkPolicies
        seen = [
            one for one in got.get("namespaces", ()) if not one.startswith("inside: its cgroup is its root")
        ]
        if not seen:
            weak.add("namespaces")  # a node with cgroup v1 shows a pod where its cgroup is
        assert set(got) <= weak, f"{got}\n{found['findings']}\n{said}"
        await ground.until(partial(_gone, ground))


async def _gone(ground: Ground) -> bool:
    return not await left_behind(ground)
