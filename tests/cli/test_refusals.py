"""What must not get in: refused with file, line, field and fix; and nothing is half created."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "apiVersion: crucible.dev/v1alpha1\nkind: Plugin\nmetadata: {name: bad}\n"
SPEC = "spec:\n  version: 1.0.0\n  type: python\n  source: {inline: {main.py: x}}\n  entrypoint: [main.py]\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)
GOOD = (HEAD + SPEC).replace("name: bad", "name: good")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (HEAD + SPEC + "  resorces: {}\n", 9, "spec.resorces: unknown field: did you mean resources?"),
        (HEAD + SPEC + "  replicas: two\n", 9, "spec.replicas: input should be a valid integer"),
        (HEAD + SPEC + "  resources: {memory: 64Mo}\n", 9, "write a number like 64Mi"),
        (HEAD + SPEC.replace("[main.py]", "[../../bin/sh]"), 8, "points outside the source"),
        (HEAD + SPEC.replace("inline: {main.py: x}", "artifact: oci://x"), 7, "is not supported yet"),
        (HEAD + SPEC + "  version: 2.0.0\n", 9, "spec.version is given twice, first on line 5"),
        (HEAD + SPEC + BOMB, None, "unfolds into more than 16 MiB"),
        (HEAD + SPEC + "#" * 10_000_000, None, "is larger than 1 MiB"),
        (HEAD + "spec: " + "[" * 100_000, 4, "is nested deeper than 64 levels"),
    ],
    ids=["unknown", "type", "quantity", "path", "not-yet", "twice", "bomb", "10MB", "deep"],
)
def test_refused_together_with_the_good_one_beside_it(
    crucible: Any, tmp_path: Path, text: str, line: int | None, words: str
) -> None:
    (tmp_path / "a-good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(text)
    ended = crucible("apply", "-f", str(tmp_path))
    assert ended.code == 4
    assert ended.out == ""
    (said,) = ended.err.splitlines()
    assert words in said
    assert f"bad.yaml:{line}: " in said if line else "bad.yaml" in said
    assert crucible("get", "-o", "name").out == ""


def test_a_link_that_leaves_the_source_is_refused(crucible: Any, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.py").write_text("")
    (tmp_path / "src" / "secrets").symlink_to("/etc")
    (tmp_path / "plugin.yaml").write_text(HEAD + SPEC.replace("{inline: {main.py: x}}", "{path: src}"))
    ended = crucible("apply", "-f", str(tmp_path))
    assert ended.code == 4
    assert "plugin.yaml:7: spec.source.path: secrets is a link to /etc, which leaves the source" in ended.err


def test_what_only_the_server_can_refuse_leaves_nothing_half_done(crucible: Any) -> None:
    """The second lies in a namespace that does not exist."""
    lost = (HEAD + SPEC).replace("{name: bad}", "{name: bad, namespace: nowhere}")
    ended = crucible("apply", "-f", "-", stdin=f"{GOOD}---\n{lost}")
    assert ended.code == 3
    assert '"nowhere" not found' in ended.err
    assert crucible("get", "-o", "name").out == ""
