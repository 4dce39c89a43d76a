"""The documents a server describes itself with: discovery, OpenAPI, its version."""

from __future__ import annotations

import hashlib
import platform
from typing import TYPE_CHECKING

from crucible import __version__

from . import discovery, openapi
from .jsontypes import encode
from .routes import Address

if TYPE_CHECKING:
    from .resources import Catalog


class Documents:
    """Documents of one catalog, made when first asked for and kept until there is another catalog."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[bytes, str]] = {}
        self._catalog: Catalog | None = None

    def find(
        self, catalog: Catalog, parts: tuple[str, ...], form: str, host: str
    ) -> tuple[bytes, str] | None:
        """A document's bytes and its ETag, or None where there is none."""
        if catalog is not self._catalog:
            self._made.clear()
            self._catalog = catalog
        mark = "/".join((*parts, form))
        if mark not in self._made:
            found = _make(catalog, parts, form, host)
            if found is None:
                return None
            raw = encode(found)
            self._made[mark] = (raw, f'"{hashlib.sha256(raw).hexdigest()[:32].upper()}"')
        return self._made[mark]


def _make(catalog: Catalog, parts: tuple[str, ...], form: str, host: str) -> object | None:
    versions = catalog.versions()
    match parts:
        case ["version"]:
            return version_info()
        case ["api"]:
            return (
                discovery.aggregated(catalog, core=True)
                if form == "discovery"
                else discovery.legacy_versions(host)
            )
        case ["apis"]:
            return (
                discovery.aggregated(catalog, core=False)
                if form == "discovery"
                else discovery.legacy_groups(catalog)
            )
        case ["api", "v1"]:
            return discovery.legacy_resources(catalog, "", "v1")
        case ["apis", group] if group in versions:
            return {"kind": "APIGroup", "apiVersion": "v1", **discovery.legacy_group(catalog, group)}
        case ["apis", group, version] if version in versions.get(group, ()):
            return discovery.legacy_resources(catalog, group, version)
        case ["openapi", "v3"]:
            return openapi.index(catalog)
        case ["openapi", "v3", "api", "v1"]:
            return openapi.document(catalog, "", "v1")
        case ["openapi", "v3", "apis", group, version] if version in versions.get(group, ()):
            return openapi.document(catalog, group, version)
        case _:
            return None


def group_address(parts: list[str]) -> Address | None:
    """The group of a discovery path, as an address that can be refused in words."""
    match parts:
        case ["apis", group, *_]:
            return Address(group, "", "", "*", "", "")
        case _:
            return None


def version_info() -> dict[str, str]:
    """What ``/version`` answers: the release of the API spoken, and of this server in the build."""
    return {
        "major": "1",
        "minor": "36",
        "gitVersion": f"v1.36.0+crucible.{__version__}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": f"cpython{platform.python_version()}",
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }
