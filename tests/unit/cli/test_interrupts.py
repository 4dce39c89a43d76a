"""Ctrl-C that a system call does not notice."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from crucible.cli.interrupts import prompt_interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Hear SIGINT, also where a script's shell started the tests in the background and has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def endless() -> int:
    """A descriptor from which nothing ever comes, but an end after a minute: the failure of a test."""
    end, other = os.pipe()
    timer = threading.Timer(60, os.close, [other])
    timer.daemon = True
    timer.start()
    return end


def interrupt_unseen() -> None:
    """Send SIGINT so that the main thread's system call is not interrupted by it."""
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)


def test_an_interrupt_that_the_system_call_did_not_notice_ends_it(endless: int) -> None:
    def wait() -> None:
        with prompt_interrupts():
            sender.start()
            os.read(endless, 1)

    sender = threading.Timer(0.2, interrupt_unseen)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        wait()
    sender.join()
    assert time.monotonic() - begun < 30, "heard only once the call had ended by itself"


def test_the_handler_is_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with prompt_interrupts():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    assert not [thread for thread in threading.enumerate() if thread.name == "interrupts"]


def test_another_s_handler_is_left_alone() -> None:
    def other(*_: object) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGINT, other)
    try:
        with prompt_interrupts():
            assert signal.getsignal(signal.SIGINT) is other
    finally:
        signal.signal(signal.SIGINT, before)
