"""Ways into instances' networks that lead nowhere."""

from __future__ import annotations

import os
import subprocess

import pytest

from crucible.errors import Unavailable
from crucible.runtimes.passage import NEW_NET, House, Passage


async def test_one_that_has_just_ended_does_not_run_and_is_no_defect_of_the_host() -> None:
    """A probe that meets it counts neither way: what ended it is what is told."""
    with subprocess.Popen(["sleep", "60"]) as process:
        held = os.pidfd_open(process.pid)
        process.kill()
        process.wait()
    passage = Passage()
    try:
        with pytest.raises(Unavailable, match="it does not run"):
            async with passage.connect(House("p", lambda: os.dup(held), NEW_NET), 80):
                pass
    finally:
        passage.close()
        os.close(held)
