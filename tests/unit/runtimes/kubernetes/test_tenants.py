"""Whose address is whose, as the egress proxy of a cluster sees it; a watch that lags is not believed."""

from __future__ import annotations

import asyncio
import copy
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crucible.core.egress import Grant
from crucible.errors import NotFound, Unavailable
from crucible.model import names
from crucible.model.door import Door
from crucible.runtimes.kubernetes import marks
from crucible.runtimes.kubernetes.confirmed import FRESH, Confirmed
from crucible.runtimes.kubernetes.doorman import Doorman
from crucible.runtimes.kubernetes.tenants import Tenant, Tenants, addresses_of, grant_now, tenant_of

OWNER = marks.Owner("team-a", "fetch", "uid-1")
ADDRESS = ip_address("10.1.2.3")
SIXTH = ip_address("fd00::3")
SPEC: dict[str, Any] = {
    "type": "python",
    "version": "1.0.0",
    "source": {"inline": {"main.py": "pass"}},
    "entrypoint": ["main.py"],
    "capabilities": {"network": {"connect": ["api.example.com:443"]}},
}


def plugin(owner: marks.Owner = OWNER, **meta: Any) -> dict[str, Any]:
    identity = {"namespace": owner.namespace, "name": owner.plugin, "uid": owner.uid, **meta}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": identity,
        "spec": copy.deepcopy(SPEC),
    }


def pod(name: str = "fetch-0-1", uid: str = "pod-1", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "uid": uid,
            "namespace": OWNER.namespace,
            "ownerReferences": [OWNER.reference],
        },
        "spec": {"hostAliases": [{"ip": "10.96.0.7", "hostnames": ["egress"]}]},
        "status": {"phase": "Running", "podIP": str(ADDRESS), "podIPs": [{"ip": str(ADDRESS)}], **status},
    }


def changed(found: dict[str, Any], *path: str, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(found)
    place = made
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return made


ME = Tenant(OWNER, "fetch-0-1", "pod-1")
NOBODY: dict[str, dict[str, Any]] = {
    "ended well": pod(phase="Succeeded"),
    "ended badly": pod(phase="Failed"),
    "on its node's network": changed(pod(), "spec", "hostNetwork", value=True),
    "made without a way out": changed(pod(), "spec", "hostAliases", value=[]),
    "of nobody": changed(pod(), "metadata", "ownerReferences", value=[]),
    "of another kind": changed(
        pod(), "metadata", "ownerReferences", value=[{**OWNER.reference, "kind": "Job"}]
    ),
    "of another name": pod(name="other-0-1"),
    "without an address": pod(podIP="", podIPs=[]),
    "with rubbish for an address": pod(podIP="no address", podIPs=[{"ip": None}, {}]),
}


def test_a_pod_is_known_by_each_of_its_addresses() -> None:
    known = Tenants(Door.EGRESS)
    assert known.told(None, pod(podIPs=[{"ip": str(ADDRESS)}, {"ip": str(SIXTH)}])) == frozenset()
    assert known.who(ADDRESS) == known.who(SIXTH) == ME
    assert known.who(ip_address("::ffff:10.1.2.3")) == ME
    assert known.who(ip_address("10.1.2.4")) is None


@pytest.mark.parametrize("why", NOBODY)
def test_whoever_is_not_surely_one_of_ours_is_nobody(why: str) -> None:
    known = Tenants(Door.EGRESS)
    known.told(None, NOBODY[why])
    assert known.who(ADDRESS) is None


@pytest.mark.parametrize("why", sorted(NOBODY))
def test_one_that_becomes_anything_else_has_lost_its_address(why: str) -> None:
    known = Tenants(Door.EGRESS)
    known.told(None, pod())
    assert known.told(pod(), NOBODY[why]) == {"pod-1"}
    assert known.who(ADDRESS) is None


def test_an_address_that_several_pods_have_is_nobodys_until_one_is_left() -> None:
    known = Tenants(Door.EGRESS)
    first, second = pod(), pod(name="fetch-1-2", uid="pod-2")
    known.told(None, first)
    assert known.told(None, second) == {"pod-1"}
    assert known.who(ADDRESS) is None
    assert known.told(first, None) == frozenset()
    assert known.who(ADDRESS) == Tenant(OWNER, "fetch-1-2", "pod-2")


def test_a_pod_without_a_way_out_takes_an_address_from_one_that_has_it() -> None:
    known = Tenants(Door.EGRESS)
    known.told(None, pod())
    assert known.told(None, {**NOBODY["made without a way out"], "metadata": pod(uid="x")["metadata"]}) == {
        "pod-1"
    }
    assert known.who(ADDRESS) is None


def test_a_pod_of_the_same_name_is_another() -> None:
    known = Tenants(Door.EGRESS)
    known.told(None, pod())
    assert known.told(pod(), pod(uid="pod-2")) == {"pod-1"}
    assert known.who(ADDRESS) == Tenant(OWNER, "fetch-0-1", "pod-2")


def test_one_that_is_asked_to_end_is_itself_until_it_has() -> None:
    leaving = changed(pod(), "metadata", "deletionTimestamp", value="2026-01-31T09:30:00Z")
    known = Tenants(Door.EGRESS)
    known.told(None, pod())
    assert known.told(pod(), leaving) == frozenset()
    assert known.who(ADDRESS) == ME


PODS = st.builds(
    lambda uid, octet, phase, way: changed(
        pod(uid=uid, name=f"fetch-{uid}-1", phase=phase, podIP=f"10.0.0.{octet}", podIPs=[]),
        *("spec", "hostAliases"),
        value=pod()["spec"]["hostAliases"] if way else [],
    ),
    st.sampled_from("123"),
    st.integers(1, 3),
    st.sampled_from(["Pending", "Running", "Succeeded"]),
    st.booleans(),
)


@given(st.lists(st.tuples(PODS, st.booleans()), max_size=20))
def test_whatever_happens_an_address_is_its_one_pods_or_nobodys(
    steps: list[tuple[dict[str, Any], bool]],
) -> None:
    known, there = Tenants(Door.EGRESS), {}
    for found, goes in steps:
        uid = found["metadata"]["uid"]
        before = there.pop(uid, None)
        known.told(before, None if goes else found)
        if not goes:
            there[uid] = found
        for octet in (1, 2, 3):
            address = ip_address(f"10.0.0.{octet}")
            having = [
                one
                for one in there.values()
                if address in addresses_of(one) and one["status"]["phase"] != "Succeeded"
            ]
            assert known.who(address) == (tenant_of(having[0], Door.EGRESS) if len(having) == 1 else None)


def test_what_the_manifest_lists_is_granted() -> None:
    assert len(grant_now(plugin()).rules) == 1


def test_a_plugin_on_its_way_out_reaches_nothing() -> None:
    assert grant_now(plugin(deletionTimestamp="2026-01-31T09:30:00Z")) == Grant()


def test_a_plugin_that_is_refused_reaches_nothing() -> None:
    broken = plugin()
    broken["spec"]["version"] = ""
    assert grant_now(broken) == Grant()


class Server:
    """An API server that has one pod, or none, or is away; nothing else is asked of it."""

    def __init__(self, found: dict[str, Any] | Exception) -> None:
        self.found = found
        self.asked: list[str] = []

    async def get(self, path: str, params: Any = None) -> dict[str, Any]:
        self.asked.append(path)
        await asyncio.sleep(0)
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


GONE: dict[str, dict[str, Any] | Exception] = {
    **NOBODY,
    "gone": NotFound("no such pod"),
    "away": Unavailable("the server is away"),
    "another of that name": pod(uid="pod-2"),
}


async def test_a_pod_is_asked_after_once_for_all_who_ask_at_a_time() -> None:
    clock, server = [100.0], Server(pod())
    confirmed: Any = Confirmed(server, lambda: clock[0], Door.EGRESS)  # type: ignore[arg-type]
    answers = await asyncio.gather(*(confirmed.addresses(ME) for _ in range(5)))
    assert answers == [frozenset({ADDRESS})] * 5
    assert server.asked == ["/api/v1/namespaces/team-a/pods/fetch-0-1"]
    clock[0] += FRESH / 2
    server.found = NotFound("gone")
    assert await confirmed.addresses(ME) == {ADDRESS}
    clock[0] += FRESH / 2
    assert await confirmed.addresses(ME) == frozenset()


@pytest.mark.parametrize("why", sorted(GONE))
async def test_what_the_server_does_not_say_is_not_so(why: str) -> None:
    confirmed: Any = Confirmed(Server(GONE[why]), lambda: 0.0, Door.EGRESS)  # type: ignore[arg-type]
    assert ADDRESS not in await confirmed.addresses(ME)


class Nobody:
    """A house to which Plugins mean nothing; each of its methods hears and does nothing."""

    def leave(self, place: str) -> None:
        """Hear that a pod lost its address."""

    def told(self, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        """Hear of a Plugin."""


async def test_a_pod_is_known_by_its_address_as_a_socket_of_both_families_calls_it() -> None:
    class Server:
        async def get(self, *_: Any) -> dict[str, Any]:
            return pod()

    server: Any = Server()
    doorman = Doorman(server, Door.EGRESS, Nobody(), (), 5.0)
    doorman.plugin(None, plugin(resourceVersion="1"))
    doorman.pod(None, pod())
    for address in (str(ADDRESS), f"::ffff:{ADDRESS}"):
        assert await doorman.who(ip_address(address)) == ME
