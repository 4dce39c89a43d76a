"""To whom a relay hands new connections: written as a whole, and read back by the next controller."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from crucible.model.workload import Slot
from crucible.runtimes.docker.body import Image
from crucible.runtimes.docker.network import ROUTED, ROUTES, relay_body
from crucible.runtimes.docker.routes import Routes

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = Slot(0, 1), Slot(0, 2)


def test_all_are_reached_until_somebody_is_named(tmp_path: Path) -> None:
    routes = Routes(tmp_path)
    assert routes.lead_to("u", ONE)
    routes.put("u", (ONE,))
    assert (routes.lead_to("u", ONE), routes.lead_to("u", TWO)) == (True, False)
    assert routes.lead_to("v", TWO), "it is another plugin"
    routes.put("u", (ONE, TWO))
    assert routes.lead_to("u", TWO)
    routes.put("u", ())
    assert routes.lead_to("u", Slot(7, 9))
    assert list(routes.folder("u").iterdir()) == []


def test_the_next_controller_reads_what_stands_there(tmp_path: Path) -> None:
    Routes(tmp_path).put("u", (TWO,))
    after = Routes(tmp_path)
    assert (after.lead_to("u", ONE), after.lead_to("u", TWO)) == (False, True)
    after.folder("u").joinpath("route").unlink()
    assert not after.lead_to("u", ONE), "nobody else writes there"
    after.forget("u")
    assert after.lead_to("u", ONE)


def test_a_relay_can_read_it_and_sees_no_half_of_one(tmp_path: Path) -> None:
    routes = Routes(tmp_path)
    routes.put("u", (ONE, TWO))
    file = routes.folder("u") / "route"
    assert file.read_text() == "0-1 0-2"
    assert oct(file.stat().st_mode & 0o777) == "0o444"
    assert {oct(each.stat().st_mode & 0o777) for each in (file.parent, file.parent.parent)} == {"0o755"}
    with file.open() as before:
        routes.put("u", (TWO,))
        assert before.read() == "0-1 0-2"
    assert [path.name for path in file.parent.iterdir()] == ["route"]


@pytest.mark.parametrize("shown", [{}, {ROUTES: "/state/relays/u/routes"}])
def test_a_relay_that_looks_there_says_so_and_may_not_write(shown: dict[str, str]) -> None:
    body = relay_body("plane", "u", (80,), Image("sha256:aa"), shown)
    assert (body["Labels"].get(ROUTED) == "yes") is bool(shown)
    found = [(each["Source"], each["Target"], each["ReadOnly"]) for each in body["HostConfig"]["Mounts"]]
    assert found == [(folder, place, True) for place, folder in shown.items()]
