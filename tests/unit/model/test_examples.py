"""The examples of the documentation are manifests that are admitted."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from crucible.core.admission import violations_of

EXAMPLES = sorted((Path(__file__).parents[3] / "docs/examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_admitted(path: Path) -> None:
    for plugin in yaml.safe_load_all(path.read_text()):
        assert violations_of(plugin) == ()
