"""The SDKs as packages: each installs without anything else, whole, and its types are those it has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / "plugin-images/python/sdk"
JAVASCRIPT = ROOT / "plugin-images/javascript/sdk/crucible-plugin"
IMPORT = "import('crucible-plugin').then((sdk) => console.log(typeof sdk.Plugin))"
LOOK = """
const sdk = require(process.argv[1]);
const own = Object.getOwnPropertyNames(sdk.Plugin.prototype);
const inherited = Object.getOwnPropertyNames(Object.getPrototypeOf(sdk.Plugin.prototype));
console.log(JSON.stringify({
  exported: Object.keys(sdk), members: [...own, ...inherited],
  strange: Object.keys(sdk).filter(
    (name) => name !== "Plugin" && !(new sdk[name]("x") instanceof sdk.BusError),
  ),
}));
"""


def test_the_wheel_for_python_is_whole_typed_and_needs_nothing(tmp_path: Path) -> None:
    source = tmp_path / "sdk"
    shutil.copytree(PYTHON, source, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    files = {str(path.relative_to(source)) for path in source.rglob("crucible_plugin/**/*") if path.is_file()}
    assert {name for name in names if ".dist-info/" not in name} == files
    assert "crucible_plugin/py.typed" in names
    assert "Requires-Dist" not in metadata
    code = "import crucible_plugin as sdk, crucible_plugin.aio as aio; print(sdk.Plugin, aio.Plugin)"
    alone = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(wheel)!r}); {code}"]
    assert subprocess.run(alone, capture_output=True, text=True, check=True).stdout.count("Plugin") == 2


@pytest.fixture
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not here: install nodejs")
    return found


def test_the_package_for_javascript_is_whole_and_needs_nothing(tmp_path: Path, node: str) -> None:
    about = json.loads((JAVASCRIPT / "package.json").read_text())
    assert not {key for key in about if key.lower().endswith("dependencies")}
    assert not {"files", "scripts"} & set(about), "all of the folder is the package, and nothing runs"
    assert not (JAVASCRIPT / ".npmignore").exists()
    named = {about["main"], about["module"], about["types"], *about["exports"]["."].values()}
    assert all((JAVASCRIPT / name).is_file() for name in named)
    shutil.copytree(JAVASCRIPT, tmp_path / "node_modules/crucible-plugin")
    for code in ("console.log(typeof require('crucible-plugin').Plugin)", IMPORT):
        done = subprocess.run([node, "-e", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.stdout == "function\n", done.stderr


def test_the_types_for_typescript_are_what_the_package_exports(node: str) -> None:
    done = subprocess.run([node, "-e", LOOK, str(JAVASCRIPT)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    text = (JAVASCRIPT / "index.d.ts").read_text()
    assert set(re.findall(r"^export class (\w+)", text, re.MULTILINE)) == set(found["exported"])
    assert found["strange"] == []
    plugin = text.partition("export class Plugin {")[2].partition("\n}")[0]
    methods = set(re.findall(r"^  (\w+)\(", plugin, re.MULTILINE)) - {"constructor"}
    assert methods <= set(found["members"]), "what is typed and not there"
    assert {"method", "subscribe", "call", "stream", "publish", "ready", "run", "stop"} <= methods
    exports = (JAVASCRIPT / "index.mjs").read_text().partition("{")[2].partition("}")[0]
    assert set(re.findall(r"\w+", exports)) == set(found["exported"]), "import has what require has"
