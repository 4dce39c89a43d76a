from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from build import DIGEST, identity, instance, plugin, world
from hypothesis import given
from hypothesis import strategies as st

from crucible.core.admission import admit, violations_of
from crucible.core.decide import decide
from crucible.core.render import render
from crucible.core.secrets import FILES_LIMIT, VALUE_LIMIT, files_of, value_of
from crucible.model.decision import Start
from crucible.model.secret import SecretSeen, SecretVariable
from crucible.model.status import SourceReport

ASKING: dict[str, Any] = {
    "capabilities": {"secrets": ["api", "db"]},
    "env": [{"name": "MODE", "value": "fast"}, {"name": "TOKEN", "secret": {"name": "api", "key": "token"}}],
}
API = SecretSeen("api", there=True, keys=frozenset({"token"}), version="1")
DB = SecretSeen("db", there=True, keys=frozenset(), version="2")


def said(*seen: SecretSeen) -> tuple[str, str]:
    decision = decide(world(instance(), spec=ASKING, secrets=seen))
    (ready,) = (each for each in decision.status.conditions if each.type == "Ready")
    assert decision.actions == ()  # what runs goes on
    return ready.reason, ready.message


def test_a_secret_that_is_not_there_is_waited_for_and_named_with_the_fix() -> None:
    reason, message = said(SecretSeen("api", there=False), DB)
    assert reason == "SecretMissing"
    assert "Secret api is not in this namespace" in message
    assert "kubectl create secret generic api" in message
    _, both = said(SecretSeen("api", there=False), SecretSeen("db", there=False))
    assert "Secrets api, db are not" in both


def test_a_key_that_is_not_there_is_waited_for() -> None:
    reason, message = said(replace(API, keys=frozenset({"other"})), DB)
    assert reason == "SecretMissing"
    assert message.startswith("spec.env[1].secret.key: Secret api has no key token, only other")


@pytest.mark.parametrize("keys", [frozenset({"token"}), None])
def test_a_plugin_starts_once_all_is_there_or_nobody_here_may_look(keys: frozenset[str] | None) -> None:
    decision = decide(world(spec=ASKING, secrets=(replace(API, keys=keys), DB)))
    (start,) = decision.actions
    assert isinstance(start, Start)
    assert start.workload.secrets == (("api", "1"), ("db", "2"))
    assert start.workload.secret_env == (SecretVariable("TOKEN", "api", "token"),)
    assert start.workload.env == (("MODE", "fast"),)


def test_a_changed_secret_is_a_new_revision() -> None:
    spec, source = admit(plugin(**ASKING)), SourceReport(digest=DIGEST, resolved_for="")
    before = render(identity(), spec, source, (API, DB))
    assert before.revision == render(identity(), spec, source, (DB, API)).revision
    assert before.revision != render(identity(), spec, source, (replace(API, version="3"), DB)).revision


def test_a_variable_may_take_only_from_secrets_that_are_granted() -> None:
    spec = {**ASKING, "capabilities": {"secrets": ["db"]}}
    assert [str(each) for each in violations_of(plugin(**spec))] == [
        "spec.env[1].secret.name: add api to capabilities.secrets"
    ]


@pytest.mark.parametrize("name", ["..", "../up", "a/b", "", "A", "-a", "a-", "a\n", "."])
def test_a_name_that_no_secret_can_have_is_refused(name: str) -> None:
    assert violations_of(plugin(capabilities={"secrets": [name]}))
    env = [{"name": "X", "secret": {"name": "api", "key": f"{name}/"}}]
    assert violations_of(plugin(capabilities={"secrets": ["api"]}, env=env))


@given(key=st.text(max_size=8))
def test_no_key_leaves_the_folder_of_its_secret(key: str) -> None:
    try:
        (path,) = files_of({"api": {key: b""}})
    except ValueError:
        return
    assert path == f"api/{key}"
    assert "/" not in key
    assert key not in {"", ".", ".."}


def test_more_keys_than_can_be_shown_are_refused() -> None:
    assert len(files_of({"api": dict.fromkeys(map(str, range(FILES_LIMIT)), b"")})) == FILES_LIMIT
    with pytest.raises(ValueError, match="129 keys in all"):
        files_of({"api": dict.fromkeys(map(str, range(FILES_LIMIT + 1)), b"")})


@pytest.mark.parametrize("content", [b"a\0b", b"\xff", b"x" * (VALUE_LIMIT + 1)])
def test_a_value_that_no_variable_can_hold_is_refused_without_being_told(content: bytes) -> None:
    with pytest.raises(ValueError, match="key token of Secret api is no text") as told:
        value_of(content, "key token of Secret api")
    assert content.decode(errors="replace") not in str(told.value)
    assert value_of("grüße".encode(), "") == "grüße"
