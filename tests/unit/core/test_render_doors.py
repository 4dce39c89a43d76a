"""Which doors a manifest gives its instances, and how a plugin finds the one to the bus."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from build import plugin

from crucible.core.admission import admit
from crucible.core.render import render
from crucible.model.door import Door
from crucible.model.plugin import Identity
from crucible.model.status import SourceReport
from crucible.runtimes.docker import body
from crucible.runtimes.docker.body import Image
from crucible.runtimes.process import argv

if TYPE_CHECKING:
    from crucible.model.workload import Workload

WHO = Identity("here", "a", "uid-a", 1)


def workload(**fields: Any) -> Workload:
    return render(WHO, admit(plugin(**fields)), SourceReport(digest="sha256:" + "0" * 64, resolved_for=""))


@pytest.mark.parametrize(
    "fields",
    [
        {"capabilities": {"bus": {}}},
        {"capabilities": {"store": {"size": "1Mi"}}},
        {"health": {"live": {"ping": {}}}},
    ],
)
def test_who_takes_part_in_the_bus_has_a_door_to_it_and_its_name(fields: dict[str, Any]) -> None:
    made = workload(**fields)
    assert Door.BUS in made.doors
    assert made.revision != replace(made, doors=()).revision
    program = argv.Program()
    for variables in (argv.environment(made, program, "a-0-1"), body.environment(made, Image("i"), "a-0-1")):
        assert ("CRUCIBLE_BUS", "/run/crucible/bus.sock") in variables


def test_whose_own_hop_is_encrypted_finds_that_in_the_name_and_whom_to_believe() -> None:
    made = workload(capabilities={"bus": {"encryptLocal": True}})
    assert made.sealed
    assert made.revision != replace(made, sealed=False).revision
    program = argv.Program()
    for variables in (argv.environment(made, program, "a-0-1"), body.environment(made, Image("i"), "a-0-1")):
        assert dict(variables)["CRUCIBLE_BUS"] == "tls:///run/crucible/bus.sock"
        assert dict(variables)["CRUCIBLE_BUS_CA"] == "/run/crucible/bus.crt"


def test_who_does_not_has_neither() -> None:
    made = workload()
    assert Door.BUS not in made.doors
    program = argv.Program()
    for variables in (argv.environment(made, program, "a-0-1"), body.environment(made, Image("i"), "a-0-1")):
        assert "CRUCIBLE_BUS" not in dict(variables)


def test_what_is_granted_on_the_bus_is_no_part_of_the_revision() -> None:
    one, other = ({"bus": {"call": [name]}} for name in ("x.m", "y.m"))
    assert workload(capabilities=one).revision == workload(capabilities=other).revision
