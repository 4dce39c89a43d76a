"""A control plane of a command's own: started for it, ended with it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from crucible.cli.api import Api
from crucible.cli.endpoint import Access, endpoint_of
from crucible.cli.exits import Failed
from crucible.cli.objects import collection
from crucible.cli.terminal import note
from crucible.errors import CrucibleError

if TYPE_CHECKING:
    from types import TracebackType

_COMES_UP: Final = 60.0
_GOES_DOWN: Final = 30.0
_LAST_BREATH: Final = 2.0
_PAUSE: Final = 0.1
_PREPARING: Final = "preparing "
"""With this the controller begins what it says before something takes its time."""


class PrivatePlane:
    """The control plane of a state folder: one that runs already, or else one of our own.

    Use as a context manager. What it started it stops; what it found running it leaves alone.

    Attributes:
        access: how to reach it.
        own: it was started here.
    """

    def __init__(self, state: Path | None, runtime: str) -> None:
        self._temporary = state is None
        self._root = Path(tempfile.mkdtemp(prefix="crucible-dev-")) if state is None else state.absolute()
        self._runtime = runtime
        self._process: subprocess.Popen[bytes] | None = None
        self._log = self._root / "up.log"
        self.access = Access(state=self._root)
        self.own = False

    def __enter__(self) -> Self:
        try:
            self.own = not self.answers()
            self.ensure()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def answers(self) -> bool:
        """Whether it can be talked to."""
        try:
            with Api(endpoint_of(self.access)) as api:
                api.get(collection("default"))
        except CrucibleError:
            return False
        return True

    def ensure(self) -> None:
        """Start it unless it runs or is someone else's; return when it answers.

        Raises:
            Failed: it ended instead, or does not answer in time.
        """
        if not self.own:
            return
        if self._process is not None and not self.answers():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST_BREATH)  # a listener goes before its process has ended
        if self._process is not None and self._process.poll() is None:
            return
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        words = ["up", "--state", str(self._root), "--runtime", self._runtime]
        with self._log.open("wb") as log:
            # In a session of its own: Ctrl-C reaches us alone, and we still need it to clean up.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "crucible", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline, shown = time.monotonic() + _COMES_UP, 0
        while not self.answers():
            shown = self._show_preparations(shown)
            if self._process.poll() is not None:
                raise Failed(f"the control plane did not come up: {self._last_words()}")
            if time.monotonic() > deadline:
                raise Failed(f"the control plane does not answer after {_COMES_UP:g} s: see {self._log}")
            time.sleep(_PAUSE)

    def _show_preparations(self, shown: int) -> int:
        """Print what it says that takes its time; return how many of these lines are printed by now."""
        lines = self._log.read_text(errors="replace").splitlines()
        found = [line.partition(_PREPARING)[2] for line in lines if _PREPARING in line]
        for rest in found[shown:]:
            note(f"{_PREPARING}{rest}")
        return len(found)

    def keep(self) -> None:
        """Leave the state folder where it is: something of it could not be cleaned up."""
        self._temporary = False

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else "it said nothing"

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_GOES_DOWN)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._temporary:
            shutil.rmtree(self._root, ignore_errors=True)
