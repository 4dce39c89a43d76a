"""The subjects of the backbone: who speaks on them, who may, and what may enter a machine."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crucible.core import backbone, natsconfig
from crucible.core.natsconfig import User
from crucible.model.backbone import Joining, Share

SHARE = Share("here", ("alpha", "beta"), ("tokenizer.split", "cache.*"), ("notes.*",))


def test_a_machine_is_let_publish_to_what_holds_its_name_alone() -> None:
    assert natsconfig.permissions(User("alpha", "alpha.x", ("here",))) == {
        "publish": {
            "allow": [
                "crucible.here.alpha",
                "crucible.renew.alpha",
                "crucible.to.*.alpha",
                "crucible.say.here.alpha.>",
                "crucible.keep.here.alpha.>",
                "$JS.API.CONSUMER.CREATE.CRUCIBLE-here.>",
                "$JS.API.CONSUMER.MSG.NEXT.CRUCIBLE-here.*",
                "$JS.ACK.CRUCIBLE-here.>",
            ]
        },
        "subscribe": {
            "allow": [
                "crucible.here.*",
                "crucible.to.alpha.*",
                "crucible.say.here.>",
                "crucible.keep.here.>",
                "_INBOX.alpha.>",
            ]
        },
    }


def test_who_makes_streams_and_renews_passes_does_nothing_else() -> None:
    assert natsconfig.permissions(User("manager", "m.x", ("here",), manages=True)) == {
        "publish": {"allow": ["$JS.API.STREAM.CREATE.*", "$JS.API.STREAM.UPDATE.*", "$JS.API.STREAM.INFO.*"]},
        "subscribe": {"allow": ["_INBOX.manager.>", "crucible.renew.*"]},
        "allow_responses": {"max": 1, "expires": "10s"},
    }


def test_the_server_speaks_tls_1_3_from_the_first_byte_and_knows_people_by_their_certificates() -> None:
    found = json.loads(natsconfig.settings("10.0.0.1", 4222, [User("b", "b.x"), User("a", "a.x")]))
    assert (found["host"], found["port"]) == ("10.0.0.1", 4222)
    assert found["tls"]["min_version"] == "1.3"
    assert found["tls"]["verify_and_map"] is True
    assert found["tls"]["handshake_first"] is True
    assert [user["user"] for user in found["accounts"]["CRUCIBLE"]["users"]] == ["a.x", "b.x"]
    assert all("password" not in user for user in found["accounts"]["CRUCIBLE"]["users"])
    assert found["jetstream"]["sync_interval"] == "always"
    assert "no_auth_user" not in found


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("crucible.say.here.alpha.notes.a.b", backbone.Event("here", "alpha", "notes", "a.b")),
        ("crucible.keep.here.alpha.$host.a", backbone.Event("here", "alpha", "$host", "a")),
        ("crucible.say.here.alpha.notes", None),
        ("crucible.say.here.alpha.notes.", None),
        ("crucible.say.here.alpha.$controller.a", None),
        ("crucible.say.here.alpha.notes@beta.a", None),
        ("crucible.say.Here.alpha.notes.a", None),
        ("crucible.to.here.alpha.notes.a", None),
        ("other.say.here.alpha.notes.a", None),
    ],
)
def test_an_event_is_from_whom_its_subject_says(text: str, wanted: backbone.Event | None) -> None:
    assert backbone.event_of(text) == wanted


def test_a_frame_is_from_whom_its_subject_says() -> None:
    assert backbone.speaker_of("to", backbone.to("alpha", "beta"), "alpha") == "beta"
    assert backbone.speaker_of("to", backbone.to("gamma", "beta"), "alpha") is None
    assert backbone.speaker_of("here", backbone.here("beta")) == "beta"
    assert backbone.speaker_of("here", "crucible.here.beta.more") is None
    assert backbone.speaker_of("here", "crucible.here.*") is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "tokenizer.split",
        "here/tokenizer.split",
        "here/notes/split",
        "here/notes/$store.get",
        "here/notes/$host.open",
        "here/$controller/tokenizer.split",
        "here/notes@beta/tokenizer.split",
        "here/notes/tokenizer.split.more",
        "here/notes/tokenizer./split",
        "here//tokenizer.split",
        "/notes/tokenizer.split",
        "here/notes/tokenizer.split/",
        "here/notes/Tokenizer.split",
    ],
)
def test_nothing_but_a_plugins_method_is_called_from_elsewhere(name: str) -> None:
    assert backbone.called(name) is None


def test_a_call_names_its_namespace_its_caller_and_what_it_calls() -> None:
    name = backbone.calling("here", "notes", "tokenizer.split")
    assert backbone.called(name) == backbone.Called("here", "notes", "tokenizer", "split")
    assert backbone.called(backbone.calling("here", "$host", "a.b")) == backbone.Called(
        "here", "$host", "a", "b"
    )


def test_what_enters_is_what_is_shared_with_that_machine() -> None:
    assert backbone.may_enter(SHARE, "alpha", "tokenizer", "split")
    assert backbone.may_enter(SHARE, "beta", "cache", "anything")
    assert not backbone.may_enter(SHARE, "gamma", "tokenizer", "split")
    assert not backbone.may_enter(SHARE, "alpha", "tokenizer", "join")
    assert not backbone.may_enter(None, "alpha", "tokenizer", "split")
    assert not backbone.may_enter(Share("here", (), ("tokenizer.*",)), "alpha", "tokenizer", "split")
    assert backbone.may_enter(Share("here", ("*",), ("tokenizer.*",)), "gamma", "tokenizer", "split")
    assert backbone.may_tell(SHARE, "alpha", "notes.saved")
    assert not backbone.may_tell(SHARE, "alpha", "notes.saved.twice")
    assert not backbone.may_tell(SHARE, "gamma", "notes.saved")
    assert not backbone.may_tell(Share("here", ("*",), (), (">",)), "alpha", "crucible.events.x.y")
    assert backbone.offers(SHARE, "cache")
    assert not backbone.offers(SHARE, "cach")


def test_an_empty_share_is_nothing() -> None:
    empty = Share("here")
    assert not backbone.joins(empty, "alpha")
    assert not backbone.may_enter(empty, "alpha", "a", "b")
    assert not backbone.may_tell(empty, "alpha", "a")


@given(st.text(max_size=80))
def test_whatever_is_read_is_read_without_a_fault(text: str) -> None:
    found = backbone.called(text)
    assert found is None or backbone.calling(found.namespace, found.caller, found.name) == text
    event = backbone.event_of(f"crucible.say.{text}")
    assert event is None or backbone.say(*vars_of(event)) == f"crucible.say.{text}"


def vars_of(event: backbone.Event) -> tuple[str, str, str, str]:
    return event.namespace, event.machine, event.plugin, event.subject


def test_joining_survives_its_journey_and_shows_no_key() -> None:
    joining = Joining("alpha", "host", 4222, "ca", "certificate", "the-key", (SHARE,))
    assert Joining.from_json(json.loads(json.dumps(joining.to_json()))) == joining
    assert "the-key" not in repr(joining)
