"""Looks at other processes, and makes too many of its own."""

import ctypes
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from outcome import Attempt, Outcome, got, nothing

MANY = 64
PTRACE_ATTACH = 16
LIBC = ctypes.CDLL(None, use_errno=True)


def attempts(config: dict[str, Any]) -> dict[str, Attempt]:
    """Return what to try."""
    pid = config.get("hostPid", 0)
    return {
        "see processes of others": Attempt("namespaces", partial(see_others, pid), see_own),
        "read another's environment": Attempt("namespaces", partial(read_environment, pid), see_own),
        "read the first process's environment": Attempt("privileges", read_init, see_own),
        "write to the first process's memory": Attempt("privileges", write_init, write_own),
        "signal others": Attempt("namespaces", partial(signal_other, pid), signal_child),
        "signal everything": Attempt("namespaces", signal_all, signal_child),
        "renice others": Attempt("namespaces", partial(renice, pid), renice_self),
        "take the highest priority": Attempt("privileges", take_priority, renice_self),
        # Where it is let through it would stop this very program, which in a pod is the first process.
        **(
            {}
            if config.get("untraced")
            else {"trace the sandbox's first process": Attempt("systemCalls", trace_init, signal_child)}
        ),
        "become root": Attempt("privileges", become_root, stay_who_it_is),
        "take root's group": Attempt("privileges", take_group, stay_who_it_is),
        "give a file to root": Attempt("privileges", give_away, own_file),
        "fork without end": Attempt("pids", fork_without_end, fork_some),
        "start threads without end": Attempt("pids", thread_without_end, thread_some),
    }


def see_others(pid: int) -> Outcome:
    """Look for processes that are neither this plugin's nor its sandbox's."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    lines = {one: _command(one) for one in pids}
    foreign = [line for line in lines.values() if "systemd" in line or "sshd" in line or "dockerd" in line]
    if foreign or len(pids) > 6 or (pid and pid in pids):
        return got(f"saw {len(pids)} processes: {foreign or list(lines.values())[:5]}")
    return nothing(f"saw {len(pids)}, all its own")


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def see_own() -> bool:
    """See itself."""
    return str(os.getpid()) in os.listdir("/proc") and b"CRUCIBLE_" in Path("/proc/self/environ").read_bytes()


def read_environment(pid: int) -> Outcome:
    """Read the variables of a process of the host, by its number there."""
    return got(f"read {len(Path(f'/proc/{pid or 2**22 - 1}/environ').read_bytes())} bytes")


def read_init() -> Outcome:
    """Read the variables of the sandbox's first process, which the controller started."""
    own = ("CRUCIBLE_", "PATH=", "HOME=", "LANG=", "PYTHON", "HOSTNAME=", "LD_LIBRARY_PATH=", "KUBERNETES_")
    words = Path("/proc/1/environ").read_bytes().split(b"\0")
    foreign = [word.partition(b"=")[0] for word in words if word and not word.decode().startswith(own)]
    return got(f"found {foreign}") if foreign else nothing("nothing of its starter's")


def write_init() -> Outcome:
    """Write over what the sandbox's first process is about to do, where that belongs to another user."""
    if os.stat("/proc/1").st_uid == os.getuid():
        return nothing("it is this plugin's own user's, and nothing outside trusts it")
    with open("/proc/1/mem", "r+b"):
        return got("opened it")


def write_own() -> bool:
    """Change its own memory."""
    room = ctypes.create_string_buffer(b"before", 16)
    room.value = b"after"
    return room.value == b"after"


def signal_other(pid: int) -> Outcome:
    """Reach a process of the host by its number."""
    os.kill(pid or 2**22 - 1, 0)
    return got("it is there, and takes signals")


def signal_all() -> Outcome:
    """Reach every process there is, as ``kill -1`` does, with a signal that does nothing."""
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        seen = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
        reached = [pid for pid in seen if pid not in {1, child, os.getpid(), os.getppid()} and _takes(pid)]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return got(f"reached {reached}") if reached else nothing("only its own")


def _takes(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def signal_child() -> bool:
    """End a child of its own."""
    child = os.fork()
    if child == 0:
        signal.pause()
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) == signal.SIGTERM


def renice(pid: int) -> Outcome:
    """Slow down a process of the host."""
    os.setpriority(os.PRIO_PROCESS, pid or 2**22 - 1, 19)
    return got("slowed it down")


def renice_self() -> bool:
    """Step back behind others."""
    return os.nice(1) >= 1


def take_priority() -> Outcome:
    """Push everyone else aside."""
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    return got("took it")


def trace_init() -> Outcome:
    """Attach to the process that holds the sandbox together."""
    if LIBC.ptrace(PTRACE_ATTACH, 1, None, None) == 0:
        return got("attached")
    return nothing(os.strerror(ctypes.get_errno()))


def become_root() -> Outcome:
    """Take another user's identity."""
    os.setuid(0)
    return got(f"is uid {os.getuid()} now")


def take_group() -> Outcome:
    """Take another group's identity."""
    os.setgid(0)
    return got(f"is gid {os.getgid()} now")


def stay_who_it_is() -> bool:
    """Take the identity that it has."""
    os.setuid(os.getuid())
    os.setgid(os.getgid())
    return os.getuid() != 0


def give_away() -> Outcome:
    """Make root the owner of a file."""
    Path("/tmp/given").write_text("x")
    os.chown("/tmp/given", 0, 0)
    return got("gave it away")


def own_file() -> bool:
    """Own what it makes."""
    Path("/tmp/kept").write_text("x")
    os.chmod("/tmp/kept", 0o600)
    return os.stat("/tmp/kept").st_uid == os.getuid()


def fork_without_end() -> Outcome:
    """Make processes until the kernel refuses, then clear them away."""
    children: list[int] = []
    try:
        for _ in range(MANY):
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            children.append(child)
    except OSError as error:
        return nothing(f"refused after {len(children)} forks: {error.strerror}")
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
    return got(f"made {MANY} processes")


def fork_some() -> bool:
    """Make as many processes as a small plugin does."""
    children = [_forked(lambda: 0) for _ in range(4)]
    return all(os.waitpid(child, 0)[1] == 0 for child in children)


def _forked(body: Callable[[], int]) -> int:
    child = os.fork()
    if child == 0:
        os._exit(body())
    return child


def thread_without_end() -> Outcome:
    """Start threads until the kernel refuses."""
    threading.stack_size(64 * 1024)
    done = threading.Event()
    try:
        for _ in range(MANY):
            threading.Thread(target=done.wait, daemon=True).start()
    except RuntimeError as error:
        return nothing(f"refused after {threading.active_count() - 1} threads: {error}")
    finally:
        done.set()
    return got(f"started {MANY} threads")


def thread_some() -> bool:
    """Start as many threads as a small plugin does."""
    said: list[int] = []
    threads = [threading.Thread(target=said.append, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(said) == [0, 1, 2, 3]
