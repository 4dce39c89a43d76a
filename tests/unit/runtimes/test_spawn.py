"""What the spawner answers, and what follows where a host is short of something."""

from __future__ import annotations

import errno

import pytest

from crucible.errors import Unavailable
from crucible.runtimes.process.cgroups.base import Refused
from crucible.runtimes.process.launch import CannotStart, cause_of
from crucible.runtimes.process.spawn import _answer


def test_a_process_without_a_descriptor_to_hold_it_by_was_not_started() -> None:
    with pytest.raises(Unavailable, match="limit on open files"):
        _answer({"pid": 7, "started": 9}, [])


def test_a_host_that_cannot_fork_is_to_blame_and_not_the_plugin() -> None:
    with pytest.raises(Unavailable, match="cannot fork"):
        _answer({"unavailable": "cannot fork: Resource temporarily unavailable"}, [])
    assert _answer({"problem": "no such program"}, []) == "no such program"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.ENOMEM, errno.EAGAIN])
def test_what_a_host_lacks_counts_as_no_crash(number: int) -> None:
    assert isinstance(cause_of(OSError(number, "short")), Unavailable)
    refused = Refused("cannot make its cgroup")
    refused.__cause__ = OSError(number, "short")
    assert isinstance(cause_of(refused), Unavailable)


def test_what_is_wrong_with_one_instance_does() -> None:
    assert isinstance(cause_of(OSError(errno.ENOENT, "no such file")), CannotStart)
    assert isinstance(cause_of(ValueError("a zero byte")), CannotStart)
