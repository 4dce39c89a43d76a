"""Settings that every tier shares."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import engine as engines
import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# Control planes of tests start with the root file systems that one of them made.
os.environ.setdefault("CRUCIBLE_CACHE", str(engines.REPOSITORY / "build/cache"))

settings.register_profile("quick", max_examples=40, deadline=None, derandomize=True)
settings.register_profile(
    "long", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("long" if os.environ.get("CRUCIBLE_LONG") else "quick")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count a skip as a failure where CI is root on a machine that can host every tier."""
    del item, call
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") and os.geteuid() == 0:
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def engine() -> Iterator[engines.Engine]:
    """A Docker engine with the images of every type: one of the session's own, or that of DOCKER_HOST."""
    why = engines.missing()
    if why:
        pytest.skip(why)
    with engines.engine_for_tests() as found:
        engines.load_images(found)
        yield found
