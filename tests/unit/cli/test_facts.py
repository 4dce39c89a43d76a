"""The schema, the doctor's report, where the control plane is, and instances' names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from build import capabilities
from hypothesis import given
from hypothesis import strategies as st

from crucible.breakout.examination import Examination, held_of
from crucible.breakout.verdict import Check
from crucible.cli.doctor import document, report
from crucible.cli.endpoint import Access, kubeconfig_of
from crucible.cli.instances import InstanceName, newest, read_name
from crucible.cli.rows import COLUMNS
from crucible.cli.schema import editor_schema
from crucible.errors import Unavailable
from crucible.model.crd import plugin_crd
from crucible.model.enforcement import Control, Finding, Level

ROOT = Path(__file__).resolve().parents[3]
CHECKS = (Check(Control.CPU, "take it all", ok=True, detail="held"),)


class TestSchema:
    def test_every_example_satisfies_it(self) -> None:
        schema = editor_schema()
        jsonschema.Draft202012Validator.check_schema(schema)
        manifests = [
            *ROOT.glob("plugin-images/*/example/plugin.yaml"),
            *ROOT.glob("tests/plugins/*/plugin.yaml"),
        ]
        assert len(manifests) >= 5
        for manifest in manifests:
            jsonschema.validate(yaml.safe_load(manifest.read_text()), schema)

    @pytest.mark.parametrize(
        "change",
        [{"resorces": {}}, {"resources": {"memory": "64Mo"}}, {"resources": {"mem": 1}}, {"type": "cobol"},
         {"replicas": "two"}],
    )  # fmt: skip
    def test_what_admission_refuses_is_marked_in_the_editor(self, change: dict[str, Any]) -> None:
        manifest = yaml.safe_load((ROOT / "plugin-images/python/example/plugin.yaml").read_text())
        manifest["spec"] |= change
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(manifest, editor_schema())

    def test_a_file_is_written_only_when_it_changes(self, crucible: Any, tmp_path: Path) -> None:
        path = tmp_path / "new" / "crd.yaml"
        assert crucible("schema", "--crd", "--output", str(path)).code == 0
        before = path.stat().st_mtime_ns
        assert crucible("schema", "--crd", "--output", str(path)).code == 0
        assert path.stat().st_mtime_ns == before
        assert path.read_text() == (ROOT / "crds" / "plugins.crucible.dev.yaml").read_text()
        assert json.loads(crucible("schema").out) == editor_schema()

    def test_the_table_has_the_columns_that_kubectl_prints(self) -> None:
        (version,) = plugin_crd()["spec"]["versions"]
        printed = [
            column["name"].upper() for column in version["additionalPrinterColumns"] if not column["priority"]
        ]
        assert list(COLUMNS) == ["NAME", *printed]


class TestDoctor:
    def test_all_well(self) -> None:
        examined = Examination("process", (), held_of(capabilities(), CHECKS))
        lines = report([Finding("python", ok=True, detail="3.11")], [examined], colour=False)
        assert lines[:3] == ["This host:", "  ok  python  3.11", "process: what it needs"]
        rows = [line.split() for line in lines]
        assert ["ok", "cpu", *["1", "of", "1", "how", "cpu", "holds"]] in rows
        assert ["ok", "memory", *["not", "tried", "how", "memory", "holds"]] in rows
        assert lines[-1].startswith("process: 1 of ")
        assert " controls were tried, and held. Not tried: identity, " in lines[-1]
        assert lines[-1].endswith("(it holds only plugins that ask for it, and the suite's do not).")
        assert examined.ok

    def test_the_ending_claims_nothing_that_was_not_tried(self) -> None:
        here = capabilities(LISTEN=Level.UNAVAILABLE)
        examined = Examination("process", (), held_of(here, ()))
        assert report([], [examined], colour=False)[-1].startswith(
            f"process: 0 of {len(here.controls)} controls were tried, and held. Not tried: identity, "
        )
        (entry,) = (
            each
            for each in document([], [examined])["runtimes"]["process"]["controls"]
            if each["control"] == "cpu"
        )
        assert (entry["tried"], entry["untried"]) == (0, "the suite was not run")
        listens = held_of(here, CHECKS)
        assert {held.untried for held in listens if held.claim.control is Control.LISTEN} == {
            "not to be had here"
        }
        assert {held.untried for held in listens if held.claim.control is Control.CPU} == {""}

    def test_one_fix_is_named_once(self) -> None:
        here = capabilities(CPU=Level.UNAVAILABLE, MEMORY=Level.DEGRADED, LISTEN=Level.UNAVAILABLE)
        missing = Finding("node", ok=False, detail="absent", fix="apt-get install nodejs")
        examined = Examination("process", (missing,), held_of(here, ()))
        lines = report([], [examined], colour=False)
        assert lines[-4] == "3 to mend:"
        assert lines[-3] == "  node: apt-get install nodejs"
        assert any(line.startswith("  MISSING  cpu") for line in lines)
        assert any(line.startswith("  WEAKER   memory") for line in lines)
        assert any(line.startswith("  -        listen") for line in lines)
        assert not examined.ok

    def test_what_was_got_through_is_named_below_its_control(self) -> None:
        got = Check(Control.NETWORK, "reach the world", ok=False, detail="connected \x1b[2J")
        examined = Examination("docker", (), held_of(capabilities(), (*CHECKS, got)))
        lines = report([], [examined], colour=False)
        at = next(number for number, line in enumerate(lines) if line.startswith("  BROKEN  network"))
        assert lines[at + 1].split() == ["got", "through:", "reach", "the", "world", "connected", "\\x1b[2J"]
        assert "  network: a control that should hold was got through" in lines[-1]
        assert not examined.ok

    def test_as_data_each_control_says_what_was_tried(self) -> None:
        got = Check(Control.NETWORK, "reach the world", ok=False, detail="connected")
        examined = Examination("docker", (), held_of(capabilities(), (*CHECKS, got)))
        (entry,) = (
            entry
            for entry in document([], [examined])["runtimes"]["docker"]["controls"]
            if entry["control"] == "network"
        )
        assert (entry["passed"], entry["tried"], entry["ok"]) == (0, 1, False)
        assert entry["failures"] == [{"name": "reach the world", "detail": "connected"}]


class TestEndpoint:
    @pytest.fixture
    def home(self, tmp_path: Path) -> dict[str, str]:
        for name in ("state/control/kubeconfig", "home/.kube/config"):
            (tmp_path / name).parent.mkdir(parents=True)
            (tmp_path / name).touch()
        return {"HOME": str(tmp_path / "home"), "CRUCIBLE_STATE": str(tmp_path / "state")}

    def test_the_first_that_is_given_wins(self, home: dict[str, str], tmp_path: Path) -> None:
        both = {**home, "CRUCIBLE_KUBECONFIG": "/a", "KUBECONFIG": "/b:/c"}
        assert kubeconfig_of(Access(kubeconfig=Path("/k"), state=Path("/s")), both) == Path("/k")
        assert kubeconfig_of(Access(state=Path("/s")), both) == Path("/s/control/kubeconfig")
        assert kubeconfig_of(Access(), both) == Path("/a")
        assert kubeconfig_of(Access(), {**home, "KUBECONFIG": "/b:/c"}) == Path("/b")
        assert kubeconfig_of(Access(), home) == tmp_path / "state/control/kubeconfig"
        (tmp_path / "state/control/kubeconfig").unlink()
        assert kubeconfig_of(Access(), home) == tmp_path / "home/.kube/config"

    def test_none_at_all_is_said_with_the_places_looked_at(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match=r"looked at .*state/control/kubeconfig and .*\.kube/config"):
            kubeconfig_of(Access(), {"HOME": str(tmp_path), "CRUCIBLE_STATE": str(tmp_path / "state")})


class TestInstanceNames:
    @given(
        st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True), st.integers(0), st.integers(0)
    )
    def test_are_read_back(self, plugin: str, ordinal: int, attempt: int) -> None:
        name = InstanceName(plugin, ordinal, attempt)
        assert read_name(str(name)) == name

    @pytest.mark.parametrize("text", ["", "a", "a-1", "-1-1", "a-b-1", "a-1-b"])
    def test_what_is_none_is_passed_over(self, text: str) -> None:
        assert read_name(text) is None

    def test_the_newest_is_the_highest_attempt_not_the_last_word(self) -> None:
        names = [InstanceName("a", 0, number) for number in (9, 10)] + [InstanceName("a", 1, 1)]
        assert newest(names) == (InstanceName("a", 0, 10), InstanceName("a", 1, 1))
        assert newest(names, before=True) == (InstanceName("a", 0, 9),)
