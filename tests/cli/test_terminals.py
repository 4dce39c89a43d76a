"""Commands at a terminal, in a pipe, interrupted, and asked by a shell."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="plugins start with every control enforced only where root runs the controller"
)
FOR_EVER = "import time\nprint('\\x1b[31mred\\x1b[0m', flush=True)\nwhile True: time.sleep(1)\n"
DEADLINE = 60.0


@pytest.fixture
def running(crucible: Any, manifest: Any) -> Any:
    assert crucible("apply", "-f", manifest(FOR_EVER), "--wait").code == 0
    return crucible


def at_terminal(
    command: list[str], environment: dict[str, str], enough: Callable[[str], bool]
) -> tuple[str, int]:
    """Run at a terminal until enough was seen, press Ctrl-C, and return what it showed and its exit code."""
    keyboard, screen = pty.openpty()
    process = subprocess.Popen(
        command, stdin=screen, stdout=screen, stderr=screen, env=environment, start_new_session=True
    )
    os.close(screen)
    try:
        shown = b""
        deadline = time.monotonic() + DEADLINE
        while not enough(shown.decode(errors="replace")):
            assert time.monotonic() < deadline, shown
            if select.select([keyboard], [], [], 0.1)[0]:
                shown += os.read(keyboard, 65536)
        process.send_signal(signal.SIGINT)
        code = process.wait(DEADLINE)
        while select.select([keyboard], [], [], 0)[0]:
            try:
                shown += os.read(keyboard, 65536)
            except OSError:
                break
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)
    return shown.decode(errors="replace"), code


def test_a_plugin_cannot_write_to_the_terminal_as_it_likes(
    running: Any, command: list[str], environment: dict[str, str]
) -> None:
    shown, code = at_terminal([*command, "logs", "demo", "-f"], environment, lambda text: "red" in text)
    assert r"\x1b[31mred\x1b[0m" in shown
    assert "\x1b" not in shown
    assert code == 130
    assert "Traceback" not in shown
    assert running("logs", "demo").out == "\x1b[31mred\x1b[0m\n"


def test_watching_is_coloured_at_a_terminal_and_ends_with_ctrl_c(
    running: Any, command: list[str], environment: dict[str, str]
) -> None:
    del running
    shown, code = at_terminal(
        [*command, "get", "-w"], environment, lambda text: "demo" in text and "Running" in text
    )
    assert "\x1b[32mRunning\x1b[0m" in shown
    assert code == 130
    assert "Traceback" not in shown
    plain, _ = at_terminal(
        [*command, "get", "-w"], {**environment, "NO_COLOR": "1"}, lambda text: "Running" in text
    )
    assert "\x1b" not in plain


def test_a_watch_shows_every_change_as_a_line(
    running: Any, command: list[str], environment: dict[str, str]
) -> None:
    process = subprocess.Popen([*command, "get", "-w"], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("NAME")
    assert "Running" in process.stdout.readline()
    running("delete", "demo")
    phases = []
    for line in process.stdout:
        phases.append(line.split()[3])
        if phases[-1] == "Deleted":
            break
    assert "Terminating" in phases
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE) == 130
    process.stdout.close()


@pytest.mark.parametrize("words", [["get", "-o", "yaml"], ["logs", "demo", "-f"], ["get", "-w"]])
def test_a_reader_that_goes_away_is_no_error(
    running: Any, command: list[str], environment: dict[str, str], words: list[str]
) -> None:
    process = subprocess.Popen(
        [*command, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    running("restart", "demo")  # those that wait have something more to write
    assert process.wait(DEADLINE) in {0, 1, 141}
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_shell_completes_commands_and_plugins(
    running: Any, command: list[str], environment: dict[str, str]
) -> None:
    del running

    def complete(line: str) -> list[str]:
        words = line.split(" ")
        asked = {
            "_CRUCIBLE_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        }
        done = subprocess.run(
            command,
            env={**environment, **asked},
            capture_output=True,
            text=True,
            check=True,
            timeout=DEADLINE,
        )
        return done.stdout.split()

    assert complete("crucible de") == ["dev", "describe", "delete"]
    assert complete("crucible logs de") == ["demo"]
    assert complete("crucible get x") == []
