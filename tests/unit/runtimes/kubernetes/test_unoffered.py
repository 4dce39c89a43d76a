"""What a cluster has no way to hold is refused there, whatever its administrator vouches for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from crucible.core.enforce import refusal_of
from crucible.model.enforcement import Control, Level
from crucible.model.plugin import parse_spec
from crucible.runtimes.kubernetes.enforcement import capabilities
from crucible.runtimes.kubernetes.settings import DoorService, KubernetesSettings

if TYPE_CHECKING:
    from crucible.model.manifest import PluginSpec

BROKER = DoorService("system", "bus", "10.96.0.8", (("app", "bus"),), 3129)
PROXY = DoorService("system", "egress", "10.96.0.7", (("app", "egress"),), 3128)
VOUCHED = KubernetesSettings(network_policies=True, user_namespaces=True, seccomp="crucible/{type}.json")
ASKS: dict[str, dict[str, Any]] = {
    "EgressUnavailable": {"network": {"connect": ["api.example.com:443"]}},
    "BusUnavailable": {"bus": {}},
}


def asking(reason: str, *accepted: str) -> PluginSpec:
    return parse_spec(
        {
            "type": "service",
            "version": "1.0.0",
            "source": {"image": "example.org/team/thing@sha256:" + "1" * 64},
            "capabilities": ASKS[reason],
            "sandbox": {"allowDegraded": ["pids", "openFiles", *accepted]},
        }
    )


@pytest.mark.parametrize("reason", ["EgressUnavailable", "BusUnavailable"])
@pytest.mark.parametrize("settings", [KubernetesSettings(), VOUCHED], ids=["plain", "vouched"])
def test_a_way_out_without_a_proxy_and_the_bus_are_refused_with_a_reason_of_their_own(
    reason: str, settings: KubernetesSettings
) -> None:
    refusal = refusal_of(asking(reason, "network"), capabilities(settings))
    assert refusal is not None
    assert refusal.reason == reason


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"health": {"live": {"ping": {}}}}, "ProbeUnavailable"),
        ({"configDelivery": "bus"}, "ConfigDeliveryUnavailable"),
        ({"capabilities": {"bus": {"subscribe": ["crucible.events.>"]}}}, "BusUnavailable"),
    ],
    ids=["ping", "config", "events"],
)
def test_what_the_operator_does_over_the_bus_needs_a_broker_and_no_more(
    more: dict[str, Any], reason: str
) -> None:
    spec = parse_spec(
        {
            "type": "python",
            "version": "1.0.0",
            "source": {"inline": {"main.py": "pass"}},
            "entrypoint": ["main.py"],
            "capabilities": {"bus": {}},
            "sandbox": {"allowDegraded": ["pids", "openFiles"]},
            **more,
        }
    )
    refusal = refusal_of(spec, capabilities(VOUCHED))
    assert refusal is not None
    assert refusal.reason == reason
    assert "bus.enabled=true" in refusal.message
    assert refusal_of(spec, capabilities(replace(VOUCHED, bus=BROKER))) is None


def test_a_way_out_is_held_where_there_is_a_proxy_and_policies_are_enforced() -> None:
    held = capabilities(replace(VOUCHED, egress=PROXY))
    assert refusal_of(asking("EgressUnavailable"), held) is None
    (egress,) = (each for each in held.controls if each.control is Control.EGRESS)
    assert egress.level is Level.ENFORCED
    assert "system/egress" in egress.by


def test_a_proxy_that_could_be_gone_around_has_to_be_accepted() -> None:
    here = capabilities(KubernetesSettings(egress=PROXY))
    refusal = refusal_of(asking("EgressUnavailable", "network"), here)
    assert refusal is not None
    assert refusal.reason == "NotEnforceable"
    assert "--network-policies=enforced" in refusal.message
    assert refusal_of(asking("EgressUnavailable", "network", "egress"), here) is None
