from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from crucible.control.apiserver.kubeconfig import context_name
from crucible.control.kubeconfig import Endpoint, default_path, load_endpoint
from crucible.errors import InvalidInput, NotFound, Unsupported
from crucible.settings import default_root


def config(**user: Any) -> dict[str, Any]:
    authority = base64.b64encode(b"CA").decode()
    return {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        "clusters": [
            {"name": "c", "cluster": {"server": "https://h:1/", "certificate-authority-data": authority}}
        ],
        "users": [{"name": "u", "user": user}],
    }


def write(folder: Path, content: Any) -> Path:
    path = folder / "config"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_token_and_embedded_authority_are_read(tmp_path: Path) -> None:
    endpoint = load_endpoint(write(tmp_path, config(token="t")))
    assert endpoint == Endpoint(server="https://h:1", ca="CA", token="t", namespace="team")


def test_files_are_read_relative_to_the_kubeconfig(tmp_path: Path) -> None:
    for name in ("cert", "key", "token"):
        (tmp_path / name).write_text(f"{name}\n")
    user = {"client-certificate": "cert", "client-key": "key", "tokenFile": "token"}
    endpoint = load_endpoint(write(tmp_path, config(**user)))
    assert (endpoint.certificate, endpoint.key, endpoint.token) == ("cert\n", "key\n", "token")


def test_another_context_can_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no context there"):
        load_endpoint(write(tmp_path, config(token="t")), context="there")


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="crucible up"):
        load_endpoint(tmp_path / "none")


@pytest.mark.parametrize("content", [{}, [], {"current-context": "x"}, "text"])
def test_what_is_no_kubeconfig_is_named_as_such(tmp_path: Path, content: Any) -> None:
    with pytest.raises(InvalidInput, match="is no complete kubeconfig"):
        load_endpoint(write(tmp_path, content))


def test_broken_yaml_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("a: [")
    with pytest.raises(InvalidInput, match="is no YAML"):
        load_endpoint(path)


def test_sign_in_by_a_helper_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="helper program"):
        load_endpoint(write(tmp_path, config(exec={"command": "aws"})))


def test_the_default_is_the_environments_then_the_home_folders() -> None:
    assert default_path({"KUBECONFIG": "/a:/b", "HOME": "/h"}) == Path("/a")
    assert default_path({"HOME": "/h"}) == Path("/h/.kube/config")


def test_only_the_usual_state_folder_has_the_plain_context_name(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "xdg")}
    usual = default_root(home)
    assert context_name(usual / "control", home) == "crucible"
    chosen = {**home, "CRUCIBLE_STATE": str(tmp_path / "mine")}
    names = {context_name(tmp_path / each / "control", chosen) for each in ("mine", "other")}
    assert len(names) == 2
    assert all(re.fullmatch(r"crucible-[0-9a-f]{8}", name) for name in names)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    assert context_name(tmp_path / "link" / "control", chosen) in names
