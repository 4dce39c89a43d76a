"""Counts the words of every note beside this file, again and again; nothing but the standard library."""

import json
import os
import re
import signal
import threading
from collections import Counter
from pathlib import Path

NOTES = Path(__file__).parent / "notes"


def count(folder: Path) -> Counter[str]:
    """Return how often each word occurs in all notes of a folder."""
    words: Counter[str] = Counter()
    for note in sorted(folder.glob("*.txt")):
        words.update(re.findall(r"[a-z']+", note.read_text(encoding="utf-8").lower()))
    return words


def main() -> None:
    """Report until asked to stop."""
    config = json.loads(Path(os.environ["CRUCIBLE_CONFIG"]).read_text(encoding="utf-8"))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print(f"word-count is up as {os.environ['CRUCIBLE_INSTANCE']}, every {config['interval']} s")
    turn = 0
    while not stop.is_set():
        turn += 1
        words = count(NOTES)
        top = ", ".join(f"{word} {times}" for word, times in words.most_common(config["top"]))
        print(f"turn {turn}: {words.total()} words, {len(words)} different; most frequent: {top}")
        stop.wait(config["interval"])
    print("asked to stop: goodbye")


if __name__ == "__main__":
    main()
