"""Workloads to compile."""

from __future__ import annotations

from typing import Any

from crucible.model.workload import Limits, Slot, Workload

UID = "11111111-2222-3333-4444-555555555555"
DIGEST = "sha256:" + "0" * 64
FIRST = Slot(0, 1)
FILES = {"main.py": "print('hello')\n", "lib/words.py": "WORDS = ()\n"}
LIMITS = Limits(cpu=500, memory=64 << 20, pids=32, disk=64 << 20, open_files=256)


def workload(**changes: Any) -> Workload:
    """Return what a small plugin is rendered to, with some values replaced."""
    return Workload(
        **{
            "namespace": "team-a",
            "plugin": "word-count",
            "plugin_uid": UID,
            "type": "python",
            "entrypoint": ("main.py", "--fast"),
            "env": (("MODE", "fast"),),
            "config": '{"threshold": 3}',
            "source": DIGEST,
            "limits": LIMITS,
            "isolation": "container",
            "grace": 10.0,
            "restart": "",
            **changes,
        }
    )
