"""What a cluster has no way to hold is refused there, whatever its administrator vouches for."""

from __future__ import annotations

from typing import Any

import pytest

from crucible.core.enforce import refusal_of
from crucible.model.plugin import parse_spec
from crucible.runtimes.kubernetes.enforcement import capabilities
from crucible.runtimes.kubernetes.settings import KubernetesSettings

VOUCHED = KubernetesSettings(network_policies=True, user_namespaces=True, seccomp="crucible/{type}.json")
ASKS: dict[str, dict[str, Any]] = {
    "EgressUnavailable": {"network": {"connect": ["api.example.com:443"]}},
    "BusUnavailable": {"bus": {}},
}


@pytest.mark.parametrize("reason", ["EgressUnavailable", "BusUnavailable"])
@pytest.mark.parametrize("settings", [KubernetesSettings(), VOUCHED], ids=["plain", "vouched"])
def test_a_way_out_and_the_bus_are_refused_with_a_reason_of_their_own(
    reason: str, settings: KubernetesSettings
) -> None:
    spec = parse_spec(
        {
            "type": "service",
            "version": "1.0.0",
            "source": {"image": "example.org/team/thing@sha256:" + "1" * 64},
            "capabilities": ASKS[reason],
            "sandbox": {"allowDegraded": ["pids", "openFiles", "network"]},
        }
    )
    refusal = refusal_of(spec, capabilities(settings))
    assert refusal is not None
    assert refusal.reason == reason
