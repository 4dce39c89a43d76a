"""The bus of a real cluster from outside of it: who is bound to the chart's Role, and who is not."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import yaml
from brokers import BROKERS, Brokers
from charted import Charted
from ground import DEADLINE

from crucible.bus.host import CallFailed
from crucible.control.kubeconfig import load_endpoint
from crucible.errors import InvalidInput, NotFound, Unavailable
from crucible.manager import PluginManager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.cluster

CALLERS = 3130
ROLE = "crucible-bus-caller"
RBAC = "rbac.authorization.k8s.io"
SPLIT = """
import time
from crucible_plugin import Plugin

plugin = Plugin()

@plugin.method()
def words(request):
    return {"said": request.payload, "caller": request.caller}

@plugin.method()
def tell(request):
    plugin.publish("notes.saved", request.payload)

@plugin.method()
def hangs(request):
    plugin.publish("notes.hangs", None)
    time.sleep(600)

plugin.run()
"""


class Cluster(Charted):
    """A release whose broker lets people outside act where it serves."""

    part = "bus"
    values: ClassVar[dict[str, Any]] = {"bus": {"enabled": True, "callers": {"namespaces": ["*"]}}}

    async def person(self, name: str, *, bound: bool) -> Path:
        """Make an account, bound to the chart's Role or to nothing; return its kubeconfig."""
        meta = {"name": name, "namespace": self.release}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}
        await self.client.create(self.within("serviceaccounts"), account)
        if bound:
            binding = {
                "apiVersion": f"{RBAC}/v1",
                "kind": "RoleBinding",
                "metadata": meta,
                "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": ROLE},
                "subjects": [{"kind": "ServiceAccount", **meta}],
            }
            await self.client.create(self.within("rolebindings", root=f"/apis/{RBAC}/v1"), binding)
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        }
        answer = await self.client.create(f"{self.within('serviceaccounts', name)}/token", asked)
        there = load_endpoint(self.kubeconfig())
        ca = base64.b64encode(there.ca.encode()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [
                {"name": "c", "cluster": {"server": there.server, "certificate-authority-data": ca}}
            ],
            "users": [{"name": "c", "user": {"token": answer["status"]["token"]}}],
            "contexts": [
                {"name": "c", "context": {"cluster": "c", "user": "c", "namespace": self.namespace}}
            ],
        }
        path = self.place / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    def manager(self, kubeconfig: Path) -> PluginManager:
        return PluginManager(kubeconfig=kubeconfig, namespace=self.namespace, release=self.release)

    async def crucible(self, kubeconfig: Path, *arguments: str) -> Any:
        """Run a command as somebody; return what it printed, read as JSON."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("crucible")),
            *(*arguments, "-o", "json", "--kubeconfig", str(kubeconfig), "--release", self.release),
            stdout=pipe,
            stderr=pipe,
            env={name: value for name, value in os.environ.items() if not name.startswith("CRUCIBLE")},
        )
        async with asyncio.timeout(DEADLINE):
            out, err = await process.communicate()
        assert process.returncode == 0, f"{err.decode()}{await self.said()}"
        return json.loads(out)

    async def served(self, manager: PluginManager, said: Any) -> Any:
        """Call until the plugin answers: it may be on its way to the broker."""

        async def answered() -> Any:
            try:
                return await manager.call("split.words", said, timeout=20)
            except (CallFailed, NotFound, Unavailable):
                return None

        return await self.until(answered, lambda: "split does not answer from outside")


class Replicated(Brokers, Cluster):
    """Two such brokers, which are one."""


@pytest.fixture
async def replicated(tmp_path: Path) -> AsyncIterator[Replicated]:
    place = Replicated(tmp_path)
    async with place:
        await place.install()
        yield place


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    place = Cluster(tmp_path)
    async with place:
        await place.install()
        yield place


async def test_who_is_bound_to_the_role_calls_and_hears_and_nobody_else_comes_to_the_broker(
    cluster: Cluster,
) -> None:
    bus = {"publish": ["notes.*"]}
    await cluster.apply("split", source={"inline": {"main.py": SPLIT}}, capabilities={"bus": bus})
    await cluster.until_ready("split")
    friend = await cluster.person("friend", bound=True)
    async with cluster.manager(friend) as manager:
        assert await cluster.served(manager, [1]) == {"said": [1], "caller": "$host"}
        heard = await manager.subscribe("notes.*")
        await manager.call("split.tell", "once")
        async with asyncio.timeout(DEADLINE):
            told = await anext(heard)
        assert (told.subject, told.sender, told.payload) == ("notes.saved", "split", "once")
        large = "x" * 900_000
        assert (await manager.call("split.words", large))["said"] == large
        answer = await cluster.crucible(friend, "call", "split.words", '"cli"')
        assert answer == {"said": "cli", "caller": "$host"}
        (figures,) = (
            each
            for each in (await cluster.crucible(friend, "top", "bus"))["items"]
            if each["plugin"] == "split"
        )
        assert figures["connections"] == 1
        # Its broker goes while a call is open: that ends typed, and the next finds whoever is there then.
        open_call = asyncio.create_task(manager.call("split.hangs", timeout=DEADLINE))
        async with asyncio.timeout(DEADLINE):
            assert (await anext(heard)).subject == "notes.hangs"
        (pod,) = await cluster.parts("bus")
        await cluster.client.end(cluster.within("pods", pod["metadata"]["name"]), pod["metadata"]["uid"], 0)
        with pytest.raises(CallFailed, match="Unavailable"):
            await open_call
        # Another broker has another authority, which the plugin's node shows it after up to two minutes.
        assert (await cluster.served(manager, [2]))["said"] == [2]
    stranger = await cluster.person("stranger", bound=False)
    async with cluster.manager(stranger) as manager:
        with pytest.raises(InvalidInput, match="Role for callers"):
            await manager.call("split.words")
    where = cluster.within("roles", ROLE, root=f"/apis/{RBAC}/v1")
    role = await cluster.client.get(where)
    rules = [rule for rule in role["rules"] if rule["resources"] != ["pods/portforward"]]
    await cluster.client.patch(where, {"rules": rules})

    async def refused() -> bool:
        try:
            async with cluster.manager(friend) as manager:
                await manager.call("split.words", timeout=20)
        except InvalidInput as error:
            return "pods/portforward" in str(error)
        return False

    await cluster.until(refused, lambda: "who lost the right to forward ports is let in")


async def test_whoever_comes_from_outside_reaches_plugins_of_every_broker_and_outlives_a_killed_one(
    replicated: Replicated,
) -> None:
    bus = {"publish": ["notes.*"]}
    await replicated.apply("split", source={"inline": {"main.py": SPLIT}}, capabilities={"bus": bus})
    await replicated.until_ready("split")
    friend = await replicated.person("friend", bound=True)
    came: set[str] = set()

    async def from_all() -> bool:
        """Come anew, to a broker at random, until somebody came to each; every one is answered."""
        async with replicated.manager(friend) as manager:
            answer = await replicated.served(manager, [1])
            assert answer == {"said": [1], "caller": "$host"}
            came.update(name for name, there in (await replicated.connections(CALLERS)).items() if there)
        return len(came) == BROKERS

    await replicated.until(from_all, lambda: f"nobody comes to the other than {came}")
    async with replicated.manager(friend) as manager:
        await replicated.kill("bus", await replicated.broker_of("split"))
        # Pods believe another broker at once: the authority is in a Secret.
        assert (await replicated.served(manager, [2]))["said"] == [2]

        heard = await manager.subscribe("notes.*")
        await manager.call("split.tell", "again")
        async with asyncio.timeout(DEADLINE):
            assert (await anext(heard)).payload == "again"
