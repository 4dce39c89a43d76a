"""What a manifest asks for is answered by the runtime's own report, and refused in one way."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from build import capabilities, plugin

from crucible.core.admission import admit
from crucible.core.enforce import accepted_gaps, enforcement_of, refusal_of
from crucible.model.enforcement import Capabilities, Control, Level

if TYPE_CHECKING:
    from crucible.model.manifest import PluginSpec

ASKS: dict[Control, dict[str, Any]] = {
    Control.LISTEN: {"capabilities": {"network": {"listen": [8080]}}},
    Control.FILES: {"capabilities": {"files": [{"volume": "notes", "mount": "/data/notes"}]}},
    Control.EGRESS: {"capabilities": {"network": {"connect": ["api.example.com:443"]}}},
    Control.SECRETS: {"capabilities": {"secrets": ["api"]}},
    Control.BUS: {"capabilities": {"bus": {}}},
    Control.STORE: {"capabilities": {"store": {"size": "1Mi"}}},
    Control.SECRET_ENV: {
        "capabilities": {"secrets": ["api"]},
        "env": [{"name": "TOKEN", "secret": {"name": "api", "key": "token"}}],
    },
}
"""For each control of a capability, the smallest manifest that asks for it."""
FIXED = [control for control in Control if control not in ASKS]


def spec(**fields: Any) -> PluginSpec:
    return admit(plugin(**fields))


def controls(asked: PluginSpec | None, here: Capabilities) -> list[Control]:
    return [entry.control for entry in enforcement_of(asked, here)]


def test_a_plugin_that_asks_for_nothing_is_held_by_the_fixed_controls() -> None:
    assert controls(spec(), capabilities()) == FIXED
    assert controls(None, capabilities()) == FIXED


@pytest.mark.parametrize("control", ASKS)
def test_a_capability_brings_its_control_and_no_more_than_it_needs(control: Control) -> None:
    found = set(controls(spec(**ASKS[control]), capabilities()))
    needs = {Control.SECRET_ENV: {Control.SECRETS}, Control.STORE: {Control.BUS}}
    assert found == {*FIXED, control} | needs.get(control, set())


@pytest.mark.parametrize("control", ASKS)
def test_a_capability_that_a_runtime_has_not_is_refused_and_cannot_be_waived(control: Control) -> None:
    here = capabilities(**{control.name: Level.UNAVAILABLE})
    waived = spec(**ASKS[control], sandbox={"allowDegraded": [control.value]})
    for asked in (spec(**ASKS[control]), waived):
        refusal = refusal_of(asked, here)
        assert refusal is not None
        assert refusal.reason.lower() == f"{control.value}unavailable".lower()
        assert refusal.message.startswith("spec.")
        assert refusal.message.endswith(f"how {control.value} holds")
    assert refusal_of(spec(), here) is None


@pytest.mark.parametrize("control", ASKS)
def test_a_capability_that_is_held_by_something_weaker_can_be_accepted(control: Control) -> None:
    here = capabilities(**{control.name: Level.DEGRADED})
    refusal = refusal_of(spec(**ASKS[control]), here)
    assert refusal is not None
    assert refusal.reason == "NotEnforceable"
    assert f"allowDegraded: [{control.value}]" in refusal.message
    accepted = spec(**ASKS[control], sandbox={"allowDegraded": [control.value]})
    assert refusal_of(accepted, here) is None
    assert [entry.control for entry in accepted_gaps(accepted, here)] == [control]
    assert accepted_gaps(spec(sandbox={"allowDegraded": [control.value]}), here) == ()


@pytest.mark.parametrize("control", FIXED)
@pytest.mark.parametrize("level", [Level.DEGRADED, Level.UNAVAILABLE])
def test_a_fixed_control_that_does_not_hold_stops_every_plugin_that_does_not_accept_that(
    control: Control, level: Level
) -> None:
    here = capabilities(**{control.name: level})
    refusal = refusal_of(spec(), here)
    assert refusal is not None
    assert refusal.reason == "NotEnforceable"
    assert refusal_of(spec(sandbox={"allowDegraded": [control.value]}), here) is None


def test_a_choice_that_is_not_offered_is_refused_with_what_is() -> None:
    here = replace(capabilities(), types=frozenset({"binary"}), isolation=frozenset())
    refusal = refusal_of(spec(), here)
    assert refusal is not None
    assert refusal.reason == "TypeUnavailable"
    assert "does not offer python; it offers binary" in refusal.message


def test_a_volume_is_granted_as_it_is_offered_and_no_other() -> None:
    def files(**entry: str) -> PluginSpec:
        return spec(capabilities={"files": [{"volume": "notes", "mount": "/data/n", **entry}]})

    here = replace(capabilities(), volumes=frozenset({"notes for reading", "maps for writing"}))
    assert refusal_of(files(), here) is None
    for asked in (files(access="write"), files(volume="other")):
        refusal = refusal_of(asked, here)
        assert refusal is not None
        assert refusal.reason == "VolumeUnavailable"
        assert refusal.message.startswith("spec.capabilities.files[0]: ")
        assert "it offers maps for writing, notes for reading" in refusal.message


def test_an_endpoint_that_someone_else_runs_is_held_by_nothing_here() -> None:
    elsewhere = spec(type="service", source={"url": "https://x"}, entrypoint=[])
    here = capabilities(MEMORY=Level.UNAVAILABLE)
    assert enforcement_of(elsewhere, here) == ()
    assert refusal_of(elsewhere, here) is None
