"""Runs plugins as sandboxed processes of this host: bubblewrap, cgroups, seccomp, and no container engine."""

from __future__ import annotations

from crucible.runtimes.process.runtime import ProcessRuntime
from crucible.runtimes.process.settings import LogLimits, ProcessSettings

__all__ = ["LogLimits", "ProcessRuntime", "ProcessSettings"]
