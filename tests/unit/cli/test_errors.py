"""Everything that can go wrong has one line on standard error and one exit code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from pathlib import Path

PLUGINS = "/apis/crucible.dev/v1alpha1/namespaces/default/plugins"


class TestErrors:
    def test_nothing_that_answers_is_code_5(self, crucible: Any, kubeconfig: Path) -> None:
        text = yaml.safe_load(kubeconfig.read_text())
        text["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
        kubeconfig.write_text(yaml.safe_dump(text))
        ended = crucible("get")
        assert ended.code == 5
        assert ended.err == (
            "error: http://127.0.0.1:1 does not answer: Connection refused; is the control plane up? "
            "Start it with 'crucible up'\n"
        )

    def test_no_control_plane_at_all_is_code_5(
        self, crucible: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("CRUCIBLE_KUBECONFIG")
        monkeypatch.delenv("KUBECONFIG", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("CRUCIBLE_STATE", str(tmp_path / "nowhere"))
        ended = crucible("get")
        assert ended.code == 5
        assert "start one with 'crucible up'" in ended.err

    @pytest.mark.parametrize(
        ("status", "code"), [(401, 4), (403, 4), (404, 3), (409, 1), (422, 4), (429, 5), (500, 5), (503, 5)]
    )
    def test_each_answer_has_its_exit_code(self, crucible: Any, server: Any, status: int, code: int) -> None:
        server.answer("GET", PLUGINS, {"message": "no"}, code=status)
        ended = crucible("get")
        assert ended.code == code
        assert len(ended.err.splitlines()) == 1

    def test_an_answer_that_is_no_json_is_no_api_server(self, crucible: Any, server: Any) -> None:
        server.answer("GET", PLUGINS, b"<html>")
        assert crucible("get").code == 5

    def test_an_unknown_command_is_wrong_usage(self, crucible: Any) -> None:
        assert crucible("frobnicate").code == 2

    def test_a_problem_of_the_server_cannot_colour_the_terminal(self, crucible: Any, server: Any) -> None:
        server.answer("GET", PLUGINS, {"message": "\x1b[31mred\nlines"}, code=400)
        assert crucible("get").err == "error: \\x1b[31mred lines\n"


class TestVersion:
    def test_says_both(self, crucible: Any, server: Any) -> None:
        server.answer("GET", "/version", {"gitVersion": "v1.36.0"})
        found = json.loads(crucible("version", "-o", "json").out)
        assert found["server"] == {"version": "v1.36.0", "address": server.url}

    def test_a_server_that_does_not_answer_is_no_failure(self, crucible: Any) -> None:
        ended = crucible("version")
        assert ended.code == 0
        assert "not found" in ended.out
