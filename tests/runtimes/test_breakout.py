"""The breakout suite on every runtime of this machine: nothing gets out, and what is promised works."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crucible.breakout.examination import held_of
from crucible.breakout.grants import lay_out
from crucible.breakout.trial import Sources, run_suite
from crucible.breakout.verdict import tallies
from crucible.cli.doctor import _control
from crucible.model.enforcement import Control

if TYPE_CHECKING:
    from crucible.breakout.verdict import Check

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from doctorlib import README, standing


async def suite(harness: Any, place: Path) -> tuple[Check, ...]:
    made = Sources(place / "suite")
    for name in ("breakout", "breakout-alone"):
        (harness.sources / name).symlink_to(made.path_of(name))
    bait = place / "bait"
    bait.mkdir(mode=0o755)
    with tempfile.TemporaryDirectory(prefix="crucible-volumes-") as name:
        Path(name).chmod(0o711)
        grants = lay_out(Path(name) / "volumes")
        harness.volumes = grants.volumes
        harness.secrets |= {name: grants.secrets_of("default", name) for name in ("bait", "other")}
        await harness.reopen()
        return await run_suite(harness.runtime, bait, lambda _: None, grants)


def as_the_readme_was_made(harness: Any) -> bool:
    """Whether everything holds here, and all of it can be seen: as root, with an engine of the tests' own."""
    whole = all(held.ok for held in held_of(harness.runtime.capabilities, ()))
    return os.geteuid() == 0 and whole and not os.environ.get("DOCKER_HOST")


@pytest.fixture(params=["process", "docker"])
def real(request: pytest.FixtureRequest) -> Any:
    """Every runtime that runs programs here."""
    return request.getfixturevalue(request.param)


async def test_nothing_gets_out_and_what_is_promised_works(real: Any, tmp_path: Path) -> None:
    checks = await suite(real, tmp_path)
    counted = tallies(real.runtime.capabilities, checks)
    failures = [check for tally in counted if not tally.holds for check in tally.failures]
    assert failures == []
    held = held_of(real.runtime.capabilities, checks)
    assert [one.claim.control for one in held if one.fixed and not one.tally] == []
    assert {Control.FILES, Control.SECRETS} <= {one.claim.control for one in held if one.tally}
    if as_the_readme_was_made(real):
        tried = {one.claim.control: standing(_control(one)) for one in held if one.tally}
        rows = [line.split(" | ") for line in README.read_text().splitlines() if line.startswith("| ")]
        table = {row[0].removeprefix("| "): " | ".join(row[1:]) for row in rows}
        stale = [control for control, words in tried.items() if words not in table.get(control, "")]
        assert stale == [], "README.md is out of date: run 'make doctor'"
    assert len(checks) > 300
