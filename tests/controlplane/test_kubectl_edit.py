"""``kubectl edit``, with programs that edit as a person would."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from probe import CONFIGMAPS, PLUGINS, Probe, configmap, plugin

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Tool

EDITOR = """\
#!/bin/sh
# Keeps what it is shown the first and the second time, and edits it as it was told for that time.
turn=$(ls "{seen}" | wc -l)
cp "$1" "{seen}/$turn.yaml"
case $turn in {cases}
*) ;;
esac
"""


def editor(folder: Path, *edits: str) -> str:
    """Make an editor that runs one sed command each time it is opened, and nothing after the last."""
    (folder / "seen").mkdir()
    cases = "\n".join(f"{turn}) sed -i '{edit}' \"$1\";;" for turn, edit in enumerate(edits))
    script = folder / "editor"
    script.write_text(EDITOR.format(seen=folder / "seen", cases=cases))
    script.chmod(0o755)
    return str(script)


async def test_a_change_is_kept(kubectl: Tool, probe: Probe, tmp_path: Path) -> None:
    before = (await probe.post(PLUGINS, plugin("a"))).body["spec"]
    await probe.post(CONFIGMAPS, configmap("c", k="before"))
    said = await kubectl.ok("edit", "plg", "a", EDITOR=editor(tmp_path, "s/replicas: 1/replicas: 3/"))
    assert "plugin.probe.dev/a edited" in said
    assert (await probe.get(f"{PLUGINS}/a")).body["spec"] == {**before, "replicas": 3}
    (tmp_path / "other").mkdir()
    await kubectl.ok("edit", "cm", "c", EDITOR=editor(tmp_path / "other", "s/k: before/k: after/"))
    assert (await probe.get(f"{CONFIGMAPS}/c")).body["data"] == {"k": "after"}


async def test_a_change_of_the_status_is_kept(kubectl: Tool, probe: Probe, tmp_path: Path) -> None:
    await probe.post(PLUGINS, plugin("a"))
    await probe.patch(f"{PLUGINS}/a/status", {"status": {"phase": "Up"}})
    change = editor(tmp_path, "s/phase: Up/phase: Down/")
    await kubectl.ok("edit", "plg", "a", "--subresource=status", EDITOR=change)
    assert (await probe.get(f"{PLUGINS}/a")).body["status"] == {"phase": "Down"}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("s/replicas: 1/replicas: -1/", "should be greater than or equal to 0"),
        ("s/replicas: 1/replicas: many/", "must be of type integer"),
    ],
)
async def test_a_refused_edit_is_shown_again_with_the_reason(
    kubectl: Tool, probe: Probe, tmp_path: Path, wrong: str, words: str
) -> None:
    before = (await probe.post(PLUGINS, plugin("a"))).body
    change = editor(tmp_path, wrong, "s/replicas: .*/replicas: 2/")
    await kubectl.ok("edit", "plg", "a", EDITOR=change)
    first, second = ((tmp_path / "seen" / f"{turn}.yaml").read_text() for turn in (0, 1))
    assert words not in first
    assert '# plugins.probe.dev "a" was not valid:' in second
    assert words in second
    after = (await probe.get(f"{PLUGINS}/a")).body
    assert after["spec"]["replicas"] == 2
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1


async def test_a_refused_edit_that_is_given_up_changes_nothing(
    kubectl: Tool, probe: Probe, tmp_path: Path
) -> None:
    before = (await probe.post(PLUGINS, plugin("a"))).body
    ran = await kubectl.run("edit", "plg", "a", EDITOR=editor(tmp_path, "s/replicas: 1/replicas: -1/"))
    assert ran.code == 1
    assert "Edit cancelled, no valid changes were saved" in ran.err
    assert len(list((tmp_path / "seen").iterdir())) == 2
    assert (await probe.get(f"{PLUGINS}/a")).body == before


async def test_text_that_is_no_yaml_any_more_is_shown_again(
    kubectl: Tool, probe: Probe, tmp_path: Path
) -> None:
    await probe.post(PLUGINS, plugin("a"))
    change = editor(tmp_path, "s/^spec:/spec: [/", "s/^spec: \\[/spec:/;s/image: x/image: later/")
    await kubectl.ok("edit", "plg", "a", EDITOR=change)
    assert (await probe.get(f"{PLUGINS}/a")).body["spec"]["image"] == "later"


async def test_an_edit_that_someone_overtook_takes_only_its_own_change(
    kubectl: Tool, probe: Probe, tmp_path: Path
) -> None:
    await probe.post(PLUGINS, plugin("a"))
    script = tmp_path / "editor"
    overtake = 'patch plg a --type=merge -p \'{"spec":{"image":"theirs"}}\''
    script.write_text(
        f'#!/bin/sh\n"{kubectl.path}" {overtake} >&2\nsed -i "s/replicas: 1/replicas: 4/" "$1"\n'
    )
    script.chmod(0o755)
    await kubectl.ok("edit", "plg", "a", EDITOR=str(script))
    spec = (await probe.get(f"{PLUGINS}/a")).body["spec"]
    assert (spec["image"], spec["replicas"]) == ("theirs", 4)
