"""Loads images into a Docker engine, where one answers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import docker
from docker.errors import DockerException, ImageNotFound

if TYPE_CHECKING:
    from pathlib import Path


class NoEngine(Exception):
    """No Docker engine answers."""


def load(path: Path, name: str, identity: str) -> bool:
    """Load an image unless the engine has it; return whether it was loaded.

    Raises:
        NoEngine: no engine answers where ``DOCKER_HOST`` says, or at the usual place.
    """
    try:
        client = docker.from_env(timeout=300)
        with contextlib.closing(client):
            client.ping()
            with contextlib.suppress(ImageNotFound):
                if client.images.get(name).id == identity:
                    return False
            with path.open("rb") as file:
                client.images.load(file)
    except (DockerException, OSError) as error:
        raise NoEngine(f"no Docker engine answers: {error}") from error
    return True
