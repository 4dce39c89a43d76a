"""Tries to get out of the sandbox, one way after the other, and says of each whether it was denied.

Every attempt runs in a child of its own, because some sandboxes answer by killing. One line of JSON each:
``{"attempt": name, "denied": bool, "detail": what happened}``; after the last, ``{"summary": {...}}``, and
then it stays: a plugin that runs, and got nowhere.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import files
import kernel
import network
import processes
import resources
from outcome import Outcome

SECONDS = 15


def main() -> None:
    """Try everything once."""
    config = json.loads(Path(os.environ["CRUCIBLE_CONFIG"]).read_text(encoding="utf-8"))
    attempts: dict[str, Callable[[], Outcome]] = {
        name: attempt
        for part in (files, processes, network, kernel, resources)
        for name, attempt in part.attempts(config).items()
    }
    denied = sum(try_one(name, attempt) for name, attempt in attempts.items())
    print(json.dumps({"summary": {"attempts": len(attempts), "denied": denied}}), flush=True)
    while True:
        signal.pause()


def try_one(name: str, attempt: Callable[[], Outcome]) -> bool:
    """Run one attempt in a child, print what became of it, and return whether it was denied."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(SECONDS)
        with os.fdopen(writer, "w") as stream:
            json.dump(judge(attempt), stream)
            stream.flush()
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    if said:
        outcome = Outcome(**json.loads(said))
    else:
        outcome = Outcome(denied=True, detail=f"the child was ended: wait status {status}")
    print(json.dumps({"attempt": name, "denied": outcome.denied, "detail": outcome.detail}), flush=True)
    return outcome.denied


def judge(attempt: Callable[[], Outcome]) -> dict[str, object]:
    """Run an attempt; an error of the system's is a denial, one of Python's is a bug of this file."""
    try:
        outcome = attempt()
    except OSError as error:
        outcome = Outcome(denied=True, detail=str(error))
    except Exception as error:  # noqa: BLE001 - a broken attempt must not look like a denied one
        outcome = Outcome(denied=False, detail=f"the attempt is broken: {error!r}")
    return {"denied": outcome.denied, "detail": outcome.detail[:300]}


if __name__ == "__main__":
    sys.exit(main())
