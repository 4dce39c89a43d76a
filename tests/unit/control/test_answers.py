from __future__ import annotations

import json

import pytest

from crucible.control.answers import error_of
from crucible.errors import Conflict, InvalidInput, InvalidManifest, NotFound, Unavailable


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, InvalidInput),
        (401, InvalidInput),
        (404, NotFound),
        (409, Conflict),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
def test_each_code_has_its_error_and_keeps_the_servers_words(code: int, kind: type[Exception]) -> None:
    error = error_of(code, json.dumps({"kind": "Status", "message": "these words"}))
    assert type(error) is kind
    assert str(error) == "these words"


def test_causes_become_violations_by_field() -> None:
    cause = {"field": "spec.type", "message": "Required value"}
    error = error_of(422, json.dumps({"message": "x", "details": {"causes": [cause]}}))
    assert isinstance(error, InvalidManifest)
    assert str(error) == "spec.type: Required value"


@pytest.mark.parametrize("text", ["", "<html>", "[1]", "null"])
def test_an_answer_that_is_no_status_is_still_an_error(text: str) -> None:
    assert isinstance(error_of(502, text), Unavailable)
