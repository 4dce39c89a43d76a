"""The Docker runtime: each instance is a hardened container of an engine that speaks Docker's API."""

from crucible.runtimes.docker.diagnosis import diagnose
from crucible.runtimes.docker.runtime import DockerRuntime
from crucible.runtimes.docker.settings import DockerSettings

__all__ = ["DockerRuntime", "DockerSettings", "diagnose"]
