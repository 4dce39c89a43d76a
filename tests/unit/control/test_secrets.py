from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from crucible.control.secrets import LocalSecrets, MountedSecrets, remembered_key, version_of, wanted_by
from crucible.errors import NotFound

if TYPE_CHECKING:
    from pathlib import Path

KEY = b"k" * 32


def secrets(**data: str) -> LocalSecrets:
    kept = {"data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}}
    known = {("team", "api"): kept}
    return LocalSecrets(lambda namespace, name: known.get((namespace, name)), KEY)


def test_what_is_told_of_a_secret_is_never_what_is_in_it() -> None:
    (seen,) = secrets(token="hunter2").look("team", ["api"])
    assert (seen.name, seen.there, seen.keys) == ("api", True, frozenset({"token"}))
    assert "hunter2" not in repr(seen)
    assert base64.b64encode(b"hunter2").decode() not in repr(seen)


def test_a_secret_of_another_namespace_is_not_there() -> None:
    (seen,) = secrets(token="hunter2").look("other", ["api"])
    assert not seen.there
    with pytest.raises(NotFound, match="no Secret api in namespace other"):
        secrets().read("other", "api")


def test_a_version_follows_the_content_and_needs_the_key() -> None:
    data = {"a": b"1", "b": b"2"}
    assert version_of(data, KEY) == version_of(dict(reversed(data.items())), KEY)
    others = [{"a": b"1"}, {"a": b"2", "b": b"1"}, {"a": b"1", "c": b"2"}, {"a": b"12", "b": b""}]
    assert len({version_of(each, KEY) for each in (data, *others)}) == 5
    assert version_of(data, KEY) != version_of(data, b"other")


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    first = remembered_key(path)
    assert len(first) == 32
    assert remembered_key(path) == first
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"cut")
    assert remembered_key(path) not in {first, b"cut"}


def test_on_a_cluster_nothing_is_looked_at() -> None:
    (seen,) = MountedSecrets().look("team", ["api"])
    assert (seen.there, seen.keys, seen.version) == (True, None, "")


@pytest.mark.parametrize(
    "spec", [None, {}, {"capabilities": None}, {"capabilities": []}, {"capabilities": {}}]
)
def test_a_plugin_without_a_readable_wish_wants_no_secret(spec: Any) -> None:
    assert wanted_by({"spec": spec}) == ()
    assert wanted_by({"spec": {"capabilities": {"secrets": ["api", 3]}}}) == ("api",)
