"""Where an operator finds a cluster's brokers."""

from __future__ import annotations

from crucible.bus.lines import Place
from crucible.clusterdoors import places_of


def test_brokers_that_let_plugins_in_are_told_from_those_that_do_not() -> None:
    found = {
        "ports": [{"name": "bus", "port": 3129}, {"name": "metrics", "port": 9090}],
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": True}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": False, "terminating": True}},
            {"addresses": ["10.0.0.3"]},
        ],
    }
    assert places_of(found) == {Place("10.0.0.1", 3129), Place("10.0.0.3", 3129)}
    assert places_of(found, ready=False) == {Place("10.0.0.2", 3129)}
