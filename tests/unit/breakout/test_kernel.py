"""What the suite asks of the kernel, it asks in the words that filters read."""

from __future__ import annotations

import ctypes
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import crucible.breakout

if TYPE_CHECKING:
    from collections.abc import Iterator

INSIDE = Path(crucible.breakout.__file__).with_name("inside")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module as it runs inside, where its neighbours are found by their names alone."""
    monkeypatch.syspath_prepend(str(INSIDE))
    before = set(sys.modules)
    yield importlib.import_module("kernel")
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_question_for_the_personality_fills_no_more_bits_than_it_has(
    kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container runtime's default profile lets 0xffffffff through, compared as 64 bits."""
    heard: list[int] = []
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint64)

    @prototype
    def personality(asked: int) -> int:
        heard.append(asked)
        return 0

    # An address alone knows no argument types, as a function of the C library does not.
    bare = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.cast(personality, ctypes.c_void_p).value or 0)
    bare.argtypes = None  # type: ignore[assignment]
    monkeypatch.setattr(kernel, "LIBC", type("Libc", (), {"personality": staticmethod(bare)}))
    assert kernel.ask_personality()
    kernel.personality()
    assert heard == [0xFFFFFFFF, 0x0040000]
