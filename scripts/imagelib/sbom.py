"""Lists what an image is made of, as SPDX 2.3."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imagelib.digest import of_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imagelib.debian import Package

PLACE: Final = "usr/share/sbom/sbom.spdx.json"
# Images are the same whenever they are made.
_CREATED: Final = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Part:
    """Something in an image.

    Attributes:
        name: as its own registry calls it.
        version: the same.
        sha256: of the archive or file it came as, in hex.
        purl: its package URL.
    """

    name: str
    version: str
    sha256: str
    purl: str


def of_package(package: Package) -> Part:
    """Describe a Debian package."""
    version = package.version.replace("+", "%2B").replace(":", "%3A")
    purl = f"pkg:deb/debian/{package.name}@{version}?arch={package.architecture}"
    return Part(package.name, package.version, package.sha256, purl)


def of_lock(lock: str) -> tuple[Part, ...]:
    """Describe the crates of a Cargo.lock: everything that may be in the program, and nothing else."""
    blocks = (
        dict(re.findall(r'^(\w+) = "(.*)"$', block, re.MULTILINE)) for block in lock.split("[[package]]")
    )
    return tuple(
        Part(one["name"], one["version"], one["checksum"], f"pkg:cargo/{one['name']}@{one['version']}")
        for one in blocks
        if "checksum" in one
    )


def document(name: str, version: str, parts: Iterable[Part]) -> str:
    """Return the SPDX document of an image, as JSON."""
    listed = sorted(set(parts), key=lambda part: (part.name, part.version))
    digest = of_lines(part.purl + part.sha256 for part in listed)
    packages = [
        {
            "SPDXID": f"SPDXRef-{number}-{re.sub(r'[^A-Za-z0-9.-]', '-', part.name)}",
            "name": part.name,
            "versionInfo": part.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": False,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
            "checksums": [{"algorithm": "SHA256", "checksumValue": part.sha256}],
            "externalRefs": [
                {
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": part.purl,
                }
            ],
        }
        for number, part in enumerate(listed)
    ]
    value = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{name}-{version}",
        "documentNamespace": f"urn:crucible:sbom:{name}:{version}:{digest}",
        "creationInfo": {"created": _CREATED, "creators": ["Tool: crucible-images"]},
        "packages": [_image(name, version), *packages],
        "relationships": [
            _relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image"),
            *(_relation("SPDXRef-image", "CONTAINS", str(package["SPDXID"])) for package in packages),
        ],
    }
    return json.dumps(value, indent=1) + "\n"


def _image(name: str, version: str) -> dict[str, object]:
    return {
        "SPDXID": "SPDXRef-image",
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "primaryPackagePurpose": "CONTAINER",
    }


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
