"""Following a collection: what is there, then every change, across whatever ends a watch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from crucible.control.answers import error_of
from crucible.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from crucible.cli.api import Api

_GONE: Final = 410


@dataclass(frozen=True, slots=True)
class Change:
    """One object as it became; ``LISTED`` for those that were there at first."""

    kind: Literal["LISTED", "ADDED", "MODIFIED", "DELETED"]
    object: dict[str, Any]


def changes(api: Api, path: str, params: Mapping[str, str]) -> Iterator[Change]:
    """Yield what a collection holds, then every change, for ever.

    Args:
        api: the API server.
        path: of the collection.
        params: selectors.

    Raises:
        Unavailable: the API server went away.
    """
    listed = False
    while True:
        answer = api.get(path, params)
        for item in answer.get("items", []):
            yield Change("ADDED" if listed else "LISTED", item)
        listed = True
        version = str(answer["metadata"].get("resourceVersion", ""))
        yield from _since(api, path, params, version)


def _since(api: Api, path: str, params: Mapping[str, str], version: str) -> Iterator[Change]:
    """Yield changes after a version until the server has forgotten how to go on."""
    while True:
        asked = {**params, "watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version}
        with api.stream(path, asked) as lines:
            for line in lines:
                event = json.loads(line)
                found = event["object"]
                match event["type"]:
                    case "ERROR" if found.get("code") == _GONE:
                        return
                    case "ERROR":
                        raise error_of(int(found.get("code", 500)), json.dumps(found))
                    case "BOOKMARK":
                        version = found["metadata"]["resourceVersion"]
                    case "ADDED" | "MODIFIED" | "DELETED" as kind:
                        version = found["metadata"]["resourceVersion"]
                        yield Change(kind, found)
                    case other:
                        raise InvalidInput(f"{api.server} sent a watch event of no known type: {other}")
