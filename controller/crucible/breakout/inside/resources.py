"""Takes more than its limits."""

import os
import resource
from functools import partial
from typing import Any

from outcome import Attempt, Outcome, got, nothing

MIB = 2**20
DISK, FILES = 64, 4096


def attempts(config: dict[str, Any]) -> dict[str, Attempt]:
    """Return what to try."""
    some = partial(fill_some, "/tmp/some")
    disk = {
        "fill the disk": Attempt("disk", partial(fill, "/tmp/filled"), some),
        "reserve the disk": Attempt("disk", reserve, some),
    }
    return {
        **({} if config.get("pod") else disk),  # a kubelet ends the pod that did, a while later
        "fill the shared memory": Attempt(
            "disk", partial(fill, "/dev/shm/filled"), partial(fill_some, "/dev/shm/some")
        ),
        "open files without end": Attempt("openFiles", open_without_end, open_some),
        "raise its limit of files": Attempt("openFiles", raise_limits, open_some),
        "run in real time": Attempt("privileges", run_in_real_time, yield_time),
    }


def fill(path: str) -> Outcome:
    """Write until there is no more room; its limit is far below what this tries."""
    written = 0
    try:
        with open(path, "wb", buffering=0) as file:
            for written in range(DISK):
                if file.write(bytes(MIB)) != MIB:
                    return nothing(f"cut short after {written} MiB")
    except OSError as error:
        return nothing(f"refused after {written} MiB: {error.strerror}")
    finally:
        os.unlink(path)
    return got(f"wrote {DISK} MiB")


def fill_some(path: str) -> bool:
    """Write as much as a small plugin does."""
    with open(path, "wb", buffering=0) as file:
        whole = file.write(bytes(MIB // 2)) == MIB // 2
    os.unlink(path)
    return whole


def reserve() -> Outcome:
    """Take the room without writing."""
    descriptor = os.open("/tmp/reserved", os.O_WRONLY | os.O_CREAT)
    try:
        os.posix_fallocate(descriptor, 0, DISK * MIB)
    finally:
        os.close(descriptor)
        os.unlink("/tmp/reserved")
    return got(f"reserved {DISK} MiB")


def open_without_end() -> Outcome:
    """Open descriptors until there are no more."""
    kept: list[int] = []
    try:
        while len(kept) < FILES:
            kept.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return nothing(f"refused after {len(kept)} files: {error.strerror}")
    finally:
        for descriptor in kept:
            os.close(descriptor)
    return got(f"opened {FILES} files")


def open_some() -> bool:
    """Open as many files as a small plugin does."""
    kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(16)]
    for descriptor in kept:
        os.close(descriptor)
    return len(set(kept)) == 16


def raise_limits() -> Outcome:
    """Lift the bound that the kernel keeps for it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))
    except ValueError as error:
        return nothing(f"stays at {soft}: {error}")
    return got(f"raised from {hard}")


def run_in_real_time() -> Outcome:
    """Run before every ordinary process of the host."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return got("does")


def yield_time() -> bool:
    """Let others run."""
    os.sched_yield()
    return os.sched_getscheduler(0) == os.SCHED_OTHER
