"""Where a plugin's program comes from, and what that asks of the rest of the manifest."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from crucible.model.fields import NotYet, Part, RelativePath, rules

if TYPE_CHECKING:
    from crucible.model.manifest import PluginSpec

INLINE_TOTAL = 256 * 1024
"""Bytes that all files of ``source.inline`` may have together."""
_EXACTLY_ONE = (
    "[has(self.inline), has(self.path), has(self.artifact), has(self.image), has(self.url)]"
    ".filter(given, given).size() == 1"
)
IMAGE_PATTERN = r"^[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$"


class PullPolicy(StrEnum):
    """When to ask a registry for an image; the words are Kubernetes' own."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


def _endpoint(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{url!r} is not an http or https address with a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "carries a user name or password, which everyone who can read the manifest would see"
        )
    return url


class Source(Part):
    """Where the plugin's files come from: exactly one of these."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (_EXACTLY_ONE, "give exactly one of inline, path, artifact, image, url"),
            ("!has(self.imagePullPolicy) || has(self.image)", "imagePullPolicy belongs to image: remove it"),
        )
    )

    inline: Annotated[
        dict[RelativePath, Annotated[str, Field(max_length=INLINE_TOTAL)]] | None, Field(max_length=64)
    ] = None
    """Files by relative path, 256 KiB in all."""
    path: Annotated[str | None, Field(min_length=1, max_length=4096)] = None
    """A folder on the controller's machine, copied when applied. Only for the local control plane."""
    artifact: Annotated[str | None, Field(max_length=1024), NotYet(instead="use inline or path")] = None
    """A bundle in an OCI registry, by digest."""
    image: Annotated[str | None, Field(max_length=512, pattern=IMAGE_PATTERN)] = None
    """A whole image, by digest or tag; a tag is resolved to a digest once."""
    image_pull_policy: PullPolicy | None = None
    """When to ask the registry: Always, IfNotPresent, Never. Unset: Always for latest, else IfNotPresent."""
    url: Annotated[str | None, Field(max_length=2048), AfterValidator(_endpoint)] = None
    """An endpoint that someone else runs. Only for type service."""

    @property
    def kind(self) -> str:
        """Which one is given: ``inline``, ``path``, ``artifact``, ``image`` or ``url``."""
        return next(name for name in _KINDS if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _exactly_one(self) -> Source:
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of inline, path, artifact, image, url; got {given or 'none'}")
        if self.image_pull_policy is not None and self.image is None:
            raise ValueError("imagePullPolicy belongs to image: remove it")
        if (
            self.inline is not None
            and sum(len(text.encode()) for text in self.inline.values()) > INLINE_TOTAL
        ):
            raise ValueError("the files of inline are larger than 256 KiB in all: use path or artifact")
        return self


_KINDS = ("inline", "path", "artifact", "image", "url")

_FILES = "(has(self.source.inline) || has(self.source.path) || has(self.source.artifact))"
_ENTRY = "(has(self.entrypoint) && self.entrypoint.size() > 0)"
_LISTENS = (
    "(has(self.capabilities) && has(self.capabilities.network) && has(self.capabilities.network.listen)"
    " && self.capabilities.network.listen.size() > 0)"
)
_LANGUAGE = "(has(self.sandbox) && has(self.sandbox.isolation) && self.sandbox.isolation == 'language')"
_GUEST = "self.type in ['wasm', 'rune']"

SPEC_RULES = (
    (f"!{_FILES} || {_ENTRY}", "entrypoint: is required: name the program among the source's files"),
    (f"!has(self.source.url) || !{_ENTRY}", "entrypoint: is not ours to run with source.url: remove it"),
    ("(self.type == 'service') || !has(self.source.url)", "source.url: is only for type service"),
    (
        f"self.type != 'service' || !{_FILES}",
        "source: a service is an image that listens, or the url of an endpoint that someone else runs",
    ),
    (
        f"self.type != 'service' || !has(self.source.image) || {_LISTENS}",
        "capabilities.network.listen: name the port that the service listens on",
    ),
    (
        f"{_GUEST} || !has(self.resources) || (!has(self.resources.fuel) && !has(self.resources.time))",
        "resources: fuel and time are only for types wasm and rune, whose host counts them",
    ),
    (
        f"{_GUEST} || !{_LANGUAGE}",
        "sandbox.isolation: language is only for types wasm and rune",
    ),
)
"""What the fields of a spec ask of each other: CEL for the API server, then ``field: message``."""

_GRANTED = (
    "(has(self.capabilities) && has(self.capabilities.secrets)"
    " && each.secret.name in self.capabilities.secrets)"
)
SECRETS_RULE = (
    f"!has(self.env) || self.env.all(each, !has(each.secret) || {_GRANTED})",
    "env: takes a value from a Secret that capabilities.secrets does not name: add it there",
)
"""What admission says of each variable by name, in CEL for the API server."""


def broken_rules(spec: PluginSpec) -> tuple[str, ...]:
    """Return the messages of the :data:`SPEC_RULES` that a spec breaks: in Python what those say in CEL."""
    source, kind = spec.source, spec.source.kind
    files, guest = kind in {"inline", "path", "artifact"}, spec.type in {"wasm", "rune"}
    holds = (
        not files or bool(spec.entrypoint),
        kind != "url" or not spec.entrypoint,
        spec.type == "service" or kind != "url",
        spec.type != "service" or not files,
        spec.type != "service" or source.image is None or bool(spec.capabilities.network.listen),
        guest or (spec.resources.fuel is None and spec.resources.time is None),
        guest or spec.sandbox.isolation != "language",
    )
    return tuple(message for (_, message), held in zip(SPEC_RULES, holds, strict=True) if not held)
