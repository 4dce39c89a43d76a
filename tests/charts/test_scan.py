"""What a public scanner says of the chart, of plugins' pods, and of the Dockerfiles: nothing unexplained.

The scanner lives apart, in ``.tools/checkov``: `make scan` puts it there, and these tests run where it is.
"""

from __future__ import annotations

import json
import os
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml
from release import REPOSITORY, SECONDS, Object
from test_templates import matrix

if TYPE_CHECKING:
    from release import Release

SCANNER = REPOSITORY / ".tools/checkov/bin/checkov"
GOLDENS = REPOSITORY / "tests/unit/runtimes/kubernetes/golden"
EXPLAINED = yaml.safe_load(Path(__file__).with_name("findings.yaml").read_text())


class Finding(NamedTuple):
    """A check that failed, and for which object of which kind of thing."""

    check: str
    resource: str
    title: str


def scan(folder: Path, framework: str) -> tuple[int, set[Finding]]:
    """Return how many checks passed, and which did not."""
    done = subprocess.run(
        [SCANNER, "-d", folder, "--framework", framework, "-o", "json", "--skip-download", "--soft-fail"],
        capture_output=True,
        text=True,
        timeout=4 * SECONDS,
        check=False,
        # Without these a scanner that finds itself in some cloud or a repository would speak of it elsewhere.
        env={"PATH": os.defpath, "HOME": str(folder), "LOG_LEVEL": "ERROR"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    failed = {
        Finding(each["check_id"], each["resource"], each["check_name"])
        for each in found["results"]["failed_checks"]
    }
    return found["summary"]["passed"], failed


def unexplained(found: set[Finding], what: str) -> list[str]:
    """Return what nobody explained, and what is explained and no longer found."""
    reasons = EXPLAINED[what]
    open_ = [
        f"{one.check} of {one.resource}: {one.title}"
        for one in sorted(found)
        if not any(
            each["check"] == one.check and fnmatchcase(one.resource, each["resource"]) for each in reasons
        )
    ]
    idle = [
        f"explained and not found: {each['check']} of {each['resource']}"
        for each in reasons
        if not any(
            each["check"] == one.check and fnmatchcase(one.resource, each["resource"]) for one in found
        )
    ]
    return open_ + idle


def test_nothing_of_the_chart_is_unexplained(release: Release, tmp_path: Path) -> None:
    for parameters in matrix():
        (values,) = parameters.values
        (tmp_path / f"{parameters.id}.yaml").write_text(yaml.safe_dump_all(release.objects(values)))
    passed, found = scan(tmp_path, "kubernetes")
    assert passed > 1000  # it looked at every choice
    assert unexplained(found, "chart") == []


def test_nothing_of_a_plugins_pod_is_unexplained(tmp_path: Path) -> None:
    for golden in GOLDENS.glob("*.json"):
        found = json.loads(golden.read_text())
        objects: list[Object] = found if isinstance(found, list) else [found]
        (tmp_path / f"{golden.stem}.yaml").write_text(yaml.safe_dump_all(objects))
    passed, findings = scan(tmp_path, "kubernetes")
    assert passed > 100
    assert unexplained(findings, "plugins") == []


def test_nothing_of_a_dockerfile_is_unexplained() -> None:
    passed, findings = scan(REPOSITORY / "plugin-images", "dockerfile")
    assert passed > 50
    assert unexplained(findings, "images") == []


@pytest.mark.parametrize("what", sorted(EXPLAINED))
def test_every_explanation_is_one(what: str) -> None:
    for each in EXPLAINED[what]:
        assert len(each["why"]) > 40, each
