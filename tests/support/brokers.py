"""A release with two brokers and the chart's NATS: who is connected where, and who is killed."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from charted import OF_APPS, Charted

BUS = "crucible-bus"
BROKERS = 2
OPERATORS = 2
PORT = 3129
_COORDINATION = "/apis/coordination.k8s.io/v1"
# The first process of a namespace takes no SIGKILL from there, but the kernel's own: it has used more
# processor time than it may now. It is kept busy until it has.
_KILL_FIRST = """
import os, resource, time, urllib.request
asked = os.getpid()
if os.fork() == 0:
    for number in range(3):
        os.close(number)
    os.setsid()
    while os.getppid() == asked:  # who asked is told first
        time.sleep(0.01)
    resource.prlimit(1, resource.RLIMIT_CPU, (1, 1))
    while True:
        urllib.request.urlopen("http://127.0.0.1:9090/metrics").read()
"""
_FINE = (
    0,
    137,
)  # all of the container's processes end with its first: the one that asked, too, if it was slow
# The pod's containers share one namespace of processes, and one user.
_KILL_NATS = """
import os, signal
for pid in filter(str.isdigit, os.listdir("/proc")):
    if open(f"/proc/{pid}/comm").read().strip() == "nats-server":
        os.kill(int(pid), signal.SIGKILL)
"""
_CONNECTIONS = """
import ipaddress, struct
for table in ("tcp", "tcp6"):
    for line in open(f"/proc/net/{table}").readlines()[1:]:
        (local, remote, state) = line.split()[1:4]
        if state == "01" and int(local.rpartition(":")[2], 16) == PORT:
            host, _, port = remote.partition(":")
            words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
            address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
            print(getattr(address, "ipv4_mapped", None) or address, int(port, 16))
"""
_FIGURES = """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:9090/metrics", timeout=20).read().decode())
"""
_INTERPRETER = "import os; print(os.readlink('/proc/self/exe'))"
_CERTIFICATE = "print(open('{}/tls.crt').read())"


class Brokers(Charted):
    """Two brokers that are one, their server, and an operator with a standby."""

    part = "bus"
    values: ClassVar[dict[str, Any]] = {
        "replicas": OPERATORS,
        "bus": {
            "enabled": True,
            "replicas": BROKERS,
            "nats": {"enabled": True, "storage": {"size": "1Gi"}},
            "callers": {"namespaces": ["*"]},
        },
    }

    async def install(self) -> None:
        """Install the release, and wait until both brokers see each other."""
        await super().install()
        self.python = (await self.inside((await self.names())[0], "broker", _INTERPRETER)).strip()
        await self.until_joined()

    async def names(self) -> list[str]:
        """Return the brokers' pods."""
        return [pod["metadata"]["name"] for pod in await self.parts("bus")]

    async def until_joined(self) -> None:
        """Wait until the release is whole again, and each broker at NATS and with the other."""

        async def joined() -> bool:
            if not await self.is_whole():
                return False
            figures = [await self.inside(name, "broker", _FIGURES) for name in await self.names()]
            seen = f"crucible_bus_replicas {BROKERS - 1}\n"
            return len(figures) == BROKERS and all(
                "crucible_bus_joined 1\n" in each and seen in each for each in figures
            )

        await self.until(joined, lambda: "the brokers do not meet")

    async def connections(self, port: int = PORT) -> dict[str, set[tuple[str, str]]]:
        """Return who is connected to a port of each broker, as address and port."""
        found = {}
        for name in await self.names():
            lines = (await self.inside(name, "broker", _CONNECTIONS.replace("PORT", str(port)))).splitlines()
            found[name] = {(host, theirs) for host, _, theirs in (line.partition(" ") for line in lines)}
        return found

    async def leader(self) -> str:
        """Return the pod of the operator that leads, once one does that is there."""

        async def found() -> str | None:
            lease = await self.client.get(self.within("leases", "crucible-operator", _COORDINATION))
            holder = str(lease["spec"].get("holderIdentity"))
            return (
                holder
                if holder in {pod["metadata"]["name"] for pod in await self.parts("operator")}
                else None
            )

        return str(await self.until(found, lambda: "no operator leads"))

    async def uids(self, *plugins: str) -> set[str]:
        """Return the pods that run of some plugins."""
        return {pod["metadata"]["uid"] for name in plugins for pod in await self.running(name)}

    async def broker_of(self, plugin: str) -> str:
        """Return the pod of the broker that a plugin of one instance is connected to, once it is."""

        async def found() -> str | None:
            (pod,) = await self.running(plugin)
            address = pod["status"]["podIP"]
            for name, clients in (await self.connections()).items():
                if address in {each for each, _ in clients}:
                    return name
            return None

        return str(await self.until(found, lambda: f"{plugin} is connected to no broker"))

    async def part_ways(self, one: str, other: str) -> None:
        """Have two plugins on different brokers: the Service chooses, so let one come until it is so."""
        while await self.broker_of(one) == await self.broker_of(other):
            (pod,) = await self.running(other)
            await self.client.delete(self.path("pods", pod["metadata"]["name"]))

            async def another(old: str = pod["metadata"]["uid"]) -> bool:
                return [each["metadata"]["uid"] != old for each in await self.running(other)] == [True]

            await self.until(another, lambda: f"{other} is not started anew")
            await self.until_ready(other)

    async def kill(self, component: str, pod: str) -> None:
        """End a program of the release by SIGKILL, and wait until its node has started it again."""
        container, inside, program = {
            "bus": ("broker", "broker", _KILL_FIRST),
            "operator": ("operator", "operator", _KILL_FIRST),
            "nats": ("nats", "reload", _KILL_NATS),
        }[component]
        before = await self._ended(pod, container)
        await self.inside(pod, inside, program, _FINE)

        async def again() -> bool:
            return await self._ended(pod, container) > before

        await self.until(again, lambda: f"{pod} was killed, and is not started again")
        state = await self._status(pod, container)
        assert state["lastState"]["terminated"]["exitCode"] == 137, state  # 128 and SIGKILL

    async def kill_operator(self, pod: str) -> None:
        """End it by SIGKILL where it stands."""
        await self.kill("operator", pod)
        await self.until_whole()

    async def replace_operator(self, pod: str) -> None:
        """Delete its pod, and wait until another leads and a new one waits."""
        await self.client.delete(self.within("pods", pod))

        async def another() -> bool:
            return await self.leader() != pod and len(await self.parts("operator")) == OPERATORS

        await self.until(another, lambda: "no other operator leads")
        await self.until_whole()

    async def _status(self, pod: str, container: str) -> dict[str, Any]:
        found = await self.client.get(self.within("pods", pod))
        return next(each for each in found["status"]["containerStatuses"] if each["name"] == container)

    async def _ended(self, pod: str, container: str) -> int:
        return int((await self._status(pod, container))["restartCount"])

    async def move(self, pod: str) -> None:
        """Delete a pod of a StatefulSet, and wait until another bears its name."""
        old = (await self.client.get(self.within("pods", pod)))["metadata"]["uid"]
        await self.client.delete(self.within("pods", pod))

        async def another() -> bool:
            return bool((await self.client.get(self.within("pods", pod)))["metadata"]["uid"] != old)

        await self.until(another, lambda: f"no other {pod} comes")

    async def replace(self) -> None:
        """Have every broker replaced, one after the other, as an upgrade does."""
        old = set(await self.names())
        await self.tool("kubectl", "rollout", "restart", f"deployment/{BUS}", "-n", self.release)

        async def others() -> bool:
            return not old & set(await self.names()) and await self.is_whole()

        await self.until(others, lambda: "the brokers are not replaced")
        await self.until_joined()

    async def scale(self, replicas: int) -> None:
        """Have so many brokers."""
        path = self.within("deployments", BUS, OF_APPS)
        await self.client.patch(path, {"spec": {"replicas": replicas}})

    async def shown(self) -> dict[str, str]:
        """Return the certificates that the nodes show to each program of the bus now."""
        folders = {("broker", "/certificates"), ("broker", "/backbone")}
        found = {}
        for name in await self.names():
            for container, folder in folders:
                text = await self.inside(name, container, _CERTIFICATE.format(folder))
                found[f"{name}{folder}"] = text
        found["nats"] = await self.inside(f"{BUS}-nats-0", "reload", _CERTIFICATE.format("/tls"))
        return found

    async def nats_was_told(self) -> bool:
        """Whether the server has read its certificates anew."""
        lines = await self.output(self.within("pods", f"{BUS}-nats-0"), container="nats")
        return any(re.search("Reloaded", line) for line in lines)
