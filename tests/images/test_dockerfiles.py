"""The Dockerfiles make what `make images` makes: the same words, from bases that stay what they are."""

from __future__ import annotations

import json
import os
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from imagelib import archive, recipes

from crucible import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagelib.make import Made

FOLDER = Path(__file__).resolve().parents[2] / "plugin-images"
EVERY_TYPE = pytest.mark.parametrize("type_", recipes.TYPES)


def text(type_: str) -> str:
    return (FOLDER / type_ / "Dockerfile").read_text()


@EVERY_TYPE
def test_it_says_of_itself_what_the_archive_says(type_: str) -> None:
    found = dict(re.findall(r"""([a-z.]+)=(?:"([^"]*)"|'[^']*')""", text(type_)))
    before = json.loads(re.search(r"dev.crucible.entrypoint='(.*)'", text(type_))[1])  # type: ignore[index]
    wanted = recipes.image(type_, recipes.Made(before=tuple(before)))
    assert isinstance(wanted, archive.Image)
    for name, value in wanted.labels.items():
        if not name.startswith("dev.crucible.e"):
            assert found[name] == (value if value != __version__ else "$VERSION"), name
    assert f"ARG VERSION={__version__}\n" in text(type_)
    assert all(word in text(type_) for word in wanted.env)
    entrypoint = re.search(r"^ENTRYPOINT (.*)$", text(type_), re.MULTILINE)
    assert (json.loads(entrypoint[1]) if entrypoint else []) == before


def test_it_starts_what_the_archive_starts(images: Mapping[str, Made]) -> None:
    for type_, made in images.items():
        labels = json.loads((made.path.parent / f"{type_}.json").read_text())["labels"]
        assert f"dev.crucible.entrypoint='{labels['dev.crucible.entrypoint']}'" in text(type_)


@EVERY_TYPE
def test_its_bases_are_exact_and_its_last_stage_is_bare(type_: str) -> None:
    bases = re.findall(r"^FROM (\S+)", text(type_), re.MULTILINE)
    assert bases[-1] == "scratch"
    assert len(bases) > 1
    assert all(re.fullmatch(r"[a-z]+:\d+\.\d+(\.\d+)?-[a-z-]+", base) for base in bases[:-1])
    assert "\nUSER 1000:1000\n" in text(type_)


def test_the_wasm_image_has_the_engine_that_is_installed() -> None:
    assert f"wasmtime=={metadata.version('wasmtime')}" in text("wasm")


def test_what_it_collects_runs_and_is_listed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    subprocess.run(
        [FOLDER / "collect", root, "crucible/x", "1", "/usr/bin/env"],
        check=True,
        capture_output=True,
        env={**os.environ, "EXTRA": "pkg:cargo/one@1.0 pkg:pypi/two_b@2+x"},
    )
    document = json.loads((root / "usr/share/sbom/sbom.spdx.json").read_text())
    assert {"coreutils", "libc6", "one", "two_b"} <= {package["name"] for package in document["packages"]}
    related = {one["relatedSpdxElement"] for one in document["relationships"]}
    assert related == {package["SPDXID"] for package in document["packages"]}
    assert (root / "usr/bin/env").is_file()
    assert list(root.rglob("libc.so.6"))
    assert all(path.stat().st_mode & 0o6022 == 0 for path in root.rglob("*") if path.is_file())
