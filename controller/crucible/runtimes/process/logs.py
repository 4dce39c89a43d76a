"""The kept output of one instance: numbered files of bounded size, each line with the time it was read.

A stored line is the unix time with microseconds, a blank, and the plugin's own bytes as they came. What a
terminal would make of those is the reader's care.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from crucible.runtimes.base import LogLine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from crucible.runtimes.process.settings import LogLimits

CUT: Final = b" [cut: the line is longer than is kept]"
_PREFIX: Final = "log-"
_AT_ONCE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The beginning of a line whose end has not come; ``cut`` when its rest is to be dropped."""

    text: bytes = b""
    cut: bool = False


def frame(unfinished: Unfinished, chunk: bytes, longest: int) -> tuple[list[bytes], Unfinished]:
    """Split output into lines without their ends, cutting those longer than ``longest`` bytes."""
    *whole, rest = (unfinished.text + chunk).split(b"\n")
    if unfinished.cut:
        if not whole:
            return [], unfinished
        del whole[0]
    lines = [line if len(line) <= longest else line[:longest] + CUT for line in whole]
    if len(rest) > longest:
        lines.append(rest[:longest] + CUT)
        return lines, Unfinished(cut=True)
    return lines, Unfinished(rest)


class LogFiles:
    """Appends lines to the newest file, begins the next when that is full, deletes the oldest."""

    def __init__(self, directory: Path, limits: LogLimits) -> None:
        self._directory = directory
        self._limits = limits
        kept = numbers(directory)
        self._newest = kept[-1] if kept else 1
        self._size = path(directory, self._newest).stat().st_size if kept else 0

    def append(self, lines: Sequence[bytes], now: float) -> int:
        """Store lines read at ``now``, in unix seconds; return how many bytes they take."""
        if not lines:
            return 0
        stamp = f"{now:.6f} ".encode()
        block = b"".join(part for line in lines for part in (stamp, line, b"\n"))
        if self._size and self._size + len(block) > self._limits.file_bytes:
            self._newest += 1
            self._size = 0
            for number in numbers(self._directory)[: -(self._limits.files - 1) or None]:
                path(self._directory, number).unlink(missing_ok=True)
        file = os.open(
            path(self._directory, self._newest), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        try:
            self._size += os.write(file, block)
        finally:
            os.close(file)
        return len(block)


def path(directory: Path, number: int) -> Path:
    """Return where the file of that number is."""
    return directory / f"{_PREFIX}{number}"


def numbers(directory: Path) -> list[int]:
    """Return the numbers of the files kept, oldest first."""
    found = (entry.name for entry in directory.iterdir())
    names = (name.removeprefix(_PREFIX) for name in found if name.startswith(_PREFIX))
    return sorted(int(name) for name in names if name.isdecimal())


def read_line(stored: bytes) -> LogLine:
    """Read a stored line; one that a full disk cut apart has the time 0 and all its bytes."""
    stamp, _, text = stored.partition(b" ")
    try:
        return LogLine(float(stamp), text)
    except ValueError:
        return LogLine(0, stored)


@dataclass(slots=True)
class Reader:
    """A place in the kept output; files that were deleted before it came to them are passed over."""

    directory: Path
    number: int = 0
    offset: int = 0

    def lines(self) -> Iterator[LogLine]:
        """Yield every whole line from here to the end as it is now, and move on."""
        for number in numbers(self.directory):
            if number > self.number:
                self.number, self.offset = number, 0
            if number == self.number:
                yield from self.rest_of_file()

    def last(self, count: int) -> Iterator[LogLine]:
        """Yield the last ``count`` lines kept, and move to the end."""
        held: list[LogLine] = []
        for number in reversed(numbers(self.directory)):
            if len(held) >= count:
                break
            held = [*Reader(self.directory, number).rest_of_file(), *held]
        for _ in self._to_end():
            pass
        yield from islice(held, max(len(held) - count, 0), None)

    def _to_end(self) -> Iterator[None]:
        kept = numbers(self.directory)
        if kept:
            self.number = kept[-1]
            self.offset = path(self.directory, self.number).stat().st_size
        yield

    def rest_of_file(self) -> Iterator[LogLine]:
        """Yield the whole lines from here to the end of this file, and move on."""
        try:
            file = path(self.directory, self.number).open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.offset += len(line)
                yield read_line(line[:-1])
