"""Tries to get out of the sandbox, one way after the other, and says of each whether it was denied.

Every attempt runs in a child of its own, because some sandboxes answer by killing; so does its counterpart,
which must succeed. One line of JSON each: ``attempt`` its name, ``control`` which one has to deny it,
``denied`` and ``detail`` what happened, ``allowed`` and ``instead`` what happened to the counterpart.

After the last, ``{"readings": {...}}``, what can be read from inside about the sandbox, and
``{"summary": {...}}``. Then it stays: a plugin that runs, and got nowhere.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import files
import granted
import kernel
import network
import processes
import readings
import resources
from outcome import Attempt, Outcome

SECONDS = 20


def main() -> None:
    """Try everything once."""
    config = json.loads(Path(os.environ["CRUCIBLE_CONFIG"]).read_text(encoding="utf-8"))
    attempts: dict[str, Attempt] = {
        name: attempt
        for part in ((granted,) if "granted" in config else (files, processes, network, kernel, resources))
        for name, attempt in part.attempts(config.get("granted", config)).items()
    }
    # First: what attempts leave behind is none of what the sandbox began with.
    found = readings.read()
    denied = sum(try_one(name, attempt) for name, attempt in attempts.items())
    say({"readings": found})
    say({"summary": {"attempts": len(attempts), "denied": denied}})
    while True:
        signal.pause()


def say(what: object) -> None:
    """Print one line of JSON."""
    print(json.dumps(what), flush=True)


def try_one(name: str, attempt: Attempt) -> bool:
    """Run an attempt and its counterpart, print what became of them, and return whether it was denied."""
    attack = in_child(attempt.attack)
    right = in_child(lambda: allow(attempt.counterpart))
    say(
        {
            "attempt": name,
            "control": attempt.control,
            "denied": attack.denied,
            "detail": attack.detail,
            "allowed": not right.denied,
            "instead": right.detail,
        }
    )
    return attack.denied


def in_child(attempt: Callable[[], Outcome]) -> Outcome:
    """Run something in a child; one that is ended for it was denied."""
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
        return Outcome(**json.loads(said))
    return Outcome(denied=True, detail=f"the child was ended: wait status {status}")


def judge(attempt: Callable[[], Outcome]) -> dict[str, object]:
    """Run an attempt; an error of the system's is a denial, one of Python's is a bug of this file."""
    try:
        outcome = attempt()
    except OSError as error:
        outcome = Outcome(denied=True, detail=str(error))
    except Exception as error:  # noqa: BLE001 - a broken attempt must not look like a denied one
        outcome = Outcome(denied=False, detail=f"the attempt is broken: {error!r}")
    return {"denied": outcome.denied, "detail": outcome.detail[:300]}


def allow(counterpart: Callable[[], object]) -> Outcome:
    """Run a counterpart; any error is a denial of what a plugin is promised."""
    try:
        answer = counterpart()
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not be
        return Outcome(denied=True, detail=repr(error))
    return Outcome(denied=answer is False, detail=str(answer))


if __name__ == "__main__":
    sys.exit(main())
