from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from build import plugin

from crucible.control.backlog import Backlog
from crucible.control.voice import ApiVoice, event_object, status_patch
from crucible.errors import Conflict, CrucibleError, NotFound, Unavailable
from crucible.model.crd import plugin_schema
from crucible.model.decision import Event
from crucible.model.names import FINALIZER
from crucible.model.plugin import read_identity
from crucible.model.status import PluginStatus

IDENTITY = read_identity(plugin())
EVENT = Event("Warning", "Crashed", "echo-0-1 exited with status 1")


class Recorder:
    """Stands for a client: answers what it is told to and keeps what it was asked."""

    def __init__(self, answer: dict[str, Any] | CrucibleError) -> None:
        self.answer = answer
        self.asked: list[tuple[Any, ...]] = []

    async def _take(self, *asked: Any) -> dict[str, Any]:
        self.asked.append(asked)
        if isinstance(self.answer, CrucibleError):
            raise self.answer
        return self.answer

    get = create = patch = tell = _take


def voice(client: Recorder) -> ApiVoice:
    return ApiVoice(client, "crucible", lambda: 0.0)  # type: ignore[arg-type]


def test_a_status_patch_deletes_what_is_unset() -> None:
    patch = status_patch(PluginStatus())
    assert patch["source"] is None
    assert set(patch) == set(plugin_schema()["properties"]["status"]["properties"])


def test_an_event_names_the_plugin_it_is_about() -> None:
    body = event_object(IDENTITY, EVENT, "crucible", 0.5)
    assert body["involvedObject"]["uid"] == IDENTITY.uid
    assert body["firstTimestamp"] == "1970-01-01T00:00:00Z"
    assert (body["type"], body["reason"], body["message"]) == ("Warning", "Crashed", EVENT.message)


async def test_a_status_is_written_only_to_the_plugin_it_is_about() -> None:
    client = Recorder({})
    await voice(client).report(IDENTITY, PluginStatus())
    ((path, body),) = client.asked
    assert path == "/apis/crucible.dev/v1alpha1/namespaces/default/plugins/echo/status"
    assert body["metadata"] == {"uid": IDENTITY.uid}


@pytest.mark.parametrize("error", [NotFound("gone"), Conflict("another of the same name")])
async def test_a_plugin_that_is_gone_needs_no_status(error: CrucibleError) -> None:
    await voice(Recorder(error)).report(IDENTITY, PluginStatus())


async def test_a_status_that_could_not_be_written_is_written_again_later() -> None:
    with pytest.raises(Unavailable):
        await voice(Recorder(Unavailable("no answer"))).report(IDENTITY, PluginStatus())


async def test_an_event_that_is_lost_disturbs_nobody() -> None:
    await voice(Recorder(Unavailable("no answer"))).tell(IDENTITY, EVENT)


async def test_an_event_waits_in_a_backlog_with_the_time_at_which_it_happened(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client, times = Recorder({}), iter((5.0, 6.0))
    backlog = Backlog(room=1)
    speaker = ApiVoice(client, "crucible", lambda: next(times), backlog)  # type: ignore[arg-type]
    await speaker.tell(IDENTITY, EVENT)
    await speaker.tell(IDENTITY, EVENT)
    assert client.asked == []
    assert "too many wait" in caplog.text
    async with backlog:
        pass
    ((path, body),) = client.asked
    assert path == "/api/v1/namespaces/default/events"
    assert body["firstTimestamp"] == "1970-01-01T00:00:05Z"


async def test_holding_adds_to_the_finalizers_of_the_object_that_was_seen() -> None:
    client = Recorder({})
    await voice(client).hold(replace(IDENTITY, finalizers=("a/b",)))
    ((_, body),) = client.asked
    assert body["metadata"] == {
        "uid": IDENTITY.uid,
        "resourceVersion": "7",
        "finalizers": ["a/b", FINALIZER],
    }


async def test_releasing_removes_our_finalizer_and_no_other() -> None:
    client = Recorder({"metadata": {"uid": IDENTITY.uid, "finalizers": ["a/b", FINALIZER]}})
    await voice(client).release(IDENTITY)
    _, patch, _ = client.asked[1]
    assert patch == [
        {"op": "test", "path": "/metadata/finalizers/1", "value": FINALIZER},
        {"op": "remove", "path": "/metadata/finalizers/1"},
    ]


@pytest.mark.parametrize(
    "answer",
    [
        {"metadata": {"uid": "another", "finalizers": [FINALIZER]}},
        {"metadata": {"uid": IDENTITY.uid}},
        NotFound("gone"),
    ],
)
async def test_there_may_be_nothing_to_release(answer: dict[str, Any] | CrucibleError) -> None:
    client = Recorder(answer)
    await voice(client).release(IDENTITY)
    assert len(client.asked) == 1
