"""The system call profile of each plugin type: the general one, less what that type's runtime never calls.

What is taken from a type answers as a kernel without the call would. The lists follow from the runtimes' own
imports and from traces of the examples; ``tests/runtimes/test_profiles.py`` traces them again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from crucible.core.seccomp import (
    ALLOW,
    PROFILE,
    Case,
    Check,
    Conditional,
    Profile,
    sockets,
)

if TYPE_CHECKING:
    from crucible.model.workload import Workload

_UNIX: Final = 1

_OLD_MESSAGES: Final = """
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink
    msgctl msgget msgrcv msgsnd semctl semget semop semtimedop shmat shmctl shmdt shmget
"""
"""System V and POSIX queues, semaphores and segments: the kernel keeps what they hold."""
_RARE: Final = """
    cachestat capset epoll_ctl_old epoll_wait_old futimesat get_thread_area ioprio_get ioprio_set
    landlock_add_rule landlock_create_ruleset landlock_restrict_self map_shadow_stack mlock2 mlockall
    munlockall readahead remap_file_pages rt_tgsigqueueinfo sched_getattr sched_setattr set_thread_area
    setfsgid setfsuid sync_file_range tee timer_create timer_delete timer_getoverrun timer_gettime
    timer_settime vmsplice
"""
"""What no interpreter calls, nor its standard library."""
_SERVING: Final = "accept accept4 bind listen recvmmsg sendmmsg"
_OWNERSHIP: Final = """
    chmod chown fchmod fchmodat fchmodat2 fchown fchownat lchown mknod mknodat umask
    fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr lremovexattr lsetxattr
    removexattr setxattr
"""
_IDENTITY: Final = """
    setgid setgroups setregid setresgid setresuid setreuid setuid setpriority
    sched_setaffinity sched_setparam sched_setscheduler sched_rr_get_interval
    mlock munlock inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
    pidfd_open pidfd_send_signal signalfd signalfd4
"""
_GUEST: Final = f"{_OLD_MESSAGES} {_RARE} {_SERVING} {_OWNERSHIP} {_IDENTITY}"
"""A host of ours around a program that can only ask it: it computes, reads and writes files, and no more."""

_UNIX_SOCKETS_ONLY: Final = sockets("socket", Case((Check(0, _UNIX),), ALLOW))


def _without(profile: Profile, names: str, *instead: Conditional) -> Profile:
    """Return a profile that no longer names some calls, and judges others by new rules."""
    judged = {rule.name: rule for rule in (*profile.conditional, *instead)}
    taken = frozenset(names.split())
    return replace(
        profile,
        allowed=profile.allowed - taken,
        conditional=tuple(rule for name, rule in judged.items() if name not in taken),
    )


PROFILES: Final = {
    "python": _without(PROFILE, f"{_OLD_MESSAGES} {_RARE} pkey_alloc pkey_free pkey_mprotect"),
    "javascript": _without(PROFILE, f"{_OLD_MESSAGES} {_RARE}"),
    "wasm": _without(PROFILE, _GUEST, _UNIX_SOCKETS_ONLY),
    "rune": _without(
        PROFILE, f"{_GUEST} pkey_alloc pkey_free pkey_mprotect memfd_create", _UNIX_SOCKETS_ONLY
    ),
    "binary": PROFILE,
    "service": PROFILE,
}
"""By ``spec.type``. A program of its author's own choosing gets the general one."""

_REACHING: Final = sockets("socket", *(Case((Check(0, family),), ALLOW) for family in (_UNIX, 2, 10)))
IN_PODS: Final = {
    kind: _without(profile, "", _REACHING) if _UNIX_SOCKETS_ONLY in profile.conditional else profile
    for kind, profile in PROFILES.items()
}
"""The same for nodes of a cluster, where the broker is reached by TCP: hosts of ours may connect to it."""


def profile_of(workload: Workload) -> Profile:
    """Return the profile a workload runs under: that of its type, or the general one for a whole image."""
    return PROFILE if workload.image else PROFILES.get(workload.type, PROFILE)
