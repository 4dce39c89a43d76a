"""Finds images: those of the types, and whole ones that manifests name. A tag is resolved once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from docker import errors

from crucible.errors import InvalidSource, Unavailable
from crucible.model.manifest import PluginType
from crucible.model.source import PullPolicy
from crucible.runtimes.docker.body import Image
from crucible.runtimes.docker.events import CODE
from crucible.runtimes.docker.labels import ENTRYPOINT, ENVIRONMENT
from crucible.runtimes.docker.pulls import Pulls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crucible.model.workload import Workload
    from crucible.runtimes.docker.engine import Engine
    from crucible.runtimes.docker.settings import DockerSettings

VOLUMES_MOST: Final = 16
LABELS_MOST: Final = 1 << 16
"""Bytes of an image's labels: all of them are in every list and every event of its containers."""


class Images:
    """The images of one engine; keeps the contract of :class:`crucible.packages.sources.Images`."""

    def __init__(self, engine: Engine, settings: DockerSettings, ring: Callable[[str], None]) -> None:
        self._engine = engine
        self._settings = settings
        self._pulls = Pulls(engine, settings, ring)
        self._known: dict[str, Image] = {}

    async def resolve(self, reference: str, policy: PullPolicy, plugin_uid: str) -> tuple[str, str]:
        """Return an image's digest and what names exactly it; asks its registry as the policy says."""
        if policy is PullPolicy.ALWAYS:
            self._pulls.ask(reference, plugin_uid)
        found = await self._look(reference)
        if found is None and policy is PullPolicy.NEVER:
            raise InvalidSource(
                f"image {reference} is not on this engine, and imagePullPolicy is Never: "
                "load or pull it, or change the policy"
            )
        if found is None:
            self._pulls.ask(reference, plugin_uid)
            raise Unavailable(f"image {reference} was pulled and is gone from the engine again")
        self._pulls.taken(reference, plugin_uid)
        image_of_inspection(found, of_type=False)
        return pinned(reference, found)

    async def image_for(self, workload: Workload) -> Image:
        """Return the image a workload runs in.

        Raises:
            Unavailable: a type's image is not on this engine.
            Underway: a plugin's own went away and is pulled again.
        """
        if not workload.image and workload.type not in set(PluginType):
            raise InvalidSource(f"there is no image for plugins of type {workload.type}")
        if not workload.image:
            return await self.image_of_type(workload.type)
        name = workload.image
        if name not in self._known:
            found = await self._look(name)
            if found is None:
                self._pulls.ask(name, workload.plugin_uid)
                raise Unavailable(f"image {name} was pulled and is gone from the engine again")
            self._known[name] = image_of_inspection(found, of_type=False)
        return self._known[name]

    async def image_of_type(self, plugin_type: str) -> Image:
        """Return a type's own image.

        Raises:
            Unavailable: it is not on this engine.
        """
        name = self._settings.image_of(plugin_type)
        if name not in self._known:
            found = await self._look(name)
            if found is None:
                raise Unavailable(
                    f"the image {name} for {plugin_type} plugins is not on this engine: "
                    "build it with `make images`"
                )
            self._known[name] = image_of_inspection(found, of_type=True)
        return self._known[name]

    def forget(self, image: str) -> None:
        """Look again at an image that turned out not to be there."""
        self._known = {name: known for name, known in self._known.items() if known.id != image}

    async def _look(self, reference: str) -> dict[str, Any] | None:
        if {"", ".", ".."} & set(reference.split("/")):  # it becomes a part of the path that is asked for
            raise InvalidSource(f"{reference} names no image: a part of it is empty, or dots")
        try:
            found: dict[str, Any] = await self._engine.call(self._engine.client.inspect_image, reference)
        except errors.ImageNotFound:
            return None
        except errors.APIError as error:
            raise InvalidSource(
                f"the engine cannot read the name {reference}: {error.explanation}"
            ) from error
        return found


def pinned(reference: str, found: Mapping[str, Any]) -> tuple[str, str]:
    """Return digest and lasting name of an image that was found under a reference.

    Raises:
        InvalidSource: the reference names a digest, and this is another image.
    """
    name, _, wanted = reference.partition("@")
    repository = name if ":" not in name.rpartition("/")[2] else name.rpartition(":")[0]
    known = [tuple(entry.split("@", 1)) for entry in found.get("RepoDigests") or () if "@" in entry]
    if wanted:
        if wanted not in {digest for _, digest in known} and wanted != found["Id"]:
            raise InvalidSource(f"the image the engine has for {reference} is another: {found['Id']}")
        return wanted, reference
    for full, digest in known:
        if _same(full, repository):
            return digest, f"{full}@{digest}"
    return found["Id"], found["Id"]


def image_of_inspection(found: Mapping[str, Any], *, of_type: bool) -> Image:
    """Read what matters of ``GET /images/NAME/json``; only a type's own image says how programs are run.

    Raises:
        InvalidSource: it wants more volumes than there is any use for, or at odd places; or its labels are in
            the way.
    """
    config = found.get("Config") or {}
    volumes = tuple(sorted(config.get("Volumes") or ()))
    if len(volumes) > VOLUMES_MOST or not all(_plain(path) for path in volumes):
        raise InvalidSource("the image declares volumes at odd places, or too many: remove its VOLUME lines")
    marks = config.get("Labels") or {}
    if not of_type:
        _labels_allow(marks)
        return Image(id=found["Id"], volumes=volumes)
    return Image(
        id=found["Id"],
        before=tuple(json.loads(marks.get(ENTRYPOINT, "[]"))),
        env=tuple(json.loads(marks.get(ENVIRONMENT, "{}")).items()),
        volumes=volumes,
    )


def _labels_allow(labels: Mapping[str, str]) -> None:
    if CODE in labels:
        raise InvalidSource(f"the image's LABEL {CODE} hides how its containers end: remove it")
    if sum(len(name) + len(text) for name, text in labels.items()) > LABELS_MOST:
        raise InvalidSource(f"the image is refused: its labels have more than {LABELS_MOST} bytes")


def _same(full: str, short: str) -> bool:
    """Whether two names mean one repository: engines write ``docker.io/library/x`` for ``x``, or not."""
    return full.removeprefix("docker.io/").removeprefix("library/") == short.removeprefix(
        "docker.io/"
    ).removeprefix("library/")


def _plain(path: str) -> bool:
    """A tmpfs may stand there: absolute, below the root, no tricks, nothing that is ours."""
    parts = path.split("/")[1:]
    reserved = {"proc", "sys", "dev", "plugin", "config"}
    return (
        path.startswith("/")
        and path != "/"
        and not {"", ".", ".."} & set(parts)
        and parts[0] not in reserved
        and not set(path) & set(":,")
    )
