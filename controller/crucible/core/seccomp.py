"""Which system calls a plugin may make: one profile, the source for every runtime.

The profile is an allow-list. What it does not name answers ``ENOSYS``, as a kernel that has no such call
would, so that C libraries fall back to older calls; what it denies on purpose answers ``EPERM``. For
arguments that no kernel knows a conditional call answers as one that is not named: where there is no "else",
every set of arguments with an answer of its own is spelled out, and each start of a container pays for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NewType

Action = NewType("Action", int)
"""A seccomp return value, as the kernel defines it."""

ALLOW: Final = Action(0x7FFF0000)
KILL: Final = Action(0x80000000)
NOT_PERMITTED: Final = Action(0x00050000 | 1)
NOT_IMPLEMENTED: Final = Action(0x00050000 | 38)
NOTHING_TO_DO: Final = Action(0x00050000)
NO_SUCH_FAMILY: Final = Action(0x00050000 | 97)

_WHOLE: Final = 0xFFFFFFFF

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. NEWTIME exists for clone3 and unshare only.
NAMESPACE_FLAGS: Final = (
    0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
)


RLIMIT_CORE: Final = 4
_RLIMITS: Final = 16
_FAMILIES: Final = 64
"""A power of two that no number of a resource, of a family of sockets reaches."""


@dataclass(frozen=True, slots=True)
class Check:
    """True where ``argument & mask == value``; arguments are compared by their low 32 bits, as ints are."""

    argument: int
    value: int
    mask: int = _WHOLE


def below(argument: int, bound: int) -> Check:
    """Return the check that an argument is a number below ``bound``, a power of two."""
    return Check(argument, 0, _WHOLE & -bound)


@dataclass(frozen=True, slots=True)
class Case:
    """What to answer when every check holds."""

    checks: tuple[Check, ...]
    action: Action


@dataclass(frozen=True, slots=True)
class Conditional:
    """A call whose answer depends on its arguments: the first case that matches, else ``otherwise``."""

    name: str
    cases: tuple[Case, ...]
    otherwise: Action


@dataclass(frozen=True, slots=True)
class Profile:
    """A whole filter.

    Attributes:
        allowed: calls that are always let through.
        denied: calls refused with ``EPERM``, by decision.
        conditional: calls judged by their arguments.
        default: the answer to everything else.
    """

    allowed: frozenset[str]
    denied: frozenset[str]
    conditional: tuple[Conditional, ...]
    default: Action = NOT_IMPLEMENTED

    def __post_init__(self) -> None:
        """Refuse a profile that answers one call twice."""
        judged = {rule.name for rule in self.conditional}
        twice = (self.allowed & self.denied) | (judged & self.allowed) | (judged & self.denied)
        if twice:
            raise ValueError(f"system calls answered twice: {sorted(twice)}")

    def action(self, name: str, arguments: tuple[int, ...] = ()) -> Action:
        """Answer one call by name: the meaning that every compiled form must have."""
        for rule in self.conditional:
            if rule.name == name:
                return _judge(rule, arguments)
        if name in self.allowed:
            return ALLOW
        return NOT_PERMITTED if name in self.denied else self.default


def sockets(name: str, *allowed: Case) -> Conditional:
    """Return the rule for a call that makes sockets: these, and no other family."""
    return Conditional(name, (*allowed, Case((below(0, _FAMILIES),), NO_SUCH_FAMILY)), NOT_IMPLEMENTED)


def _judge(rule: Conditional, arguments: tuple[int, ...]) -> Action:
    for case in rule.cases:
        if all((arguments[check.argument] & _WHOLE & check.mask) == check.value for check in case.checks):
            return case.action
    return rule.otherwise


_FILES: Final = """
    access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
    fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr
    flistxattr flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents
    getdents64 getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch lchown lgetxattr link
    linkat listxattr llistxattr lremovexattr lseek lsetxattr lstat mkdir mkdirat mknod mknodat newfstatat
    open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat
    readv removexattr rename renameat renameat2 rmdir sendfile setxattr splice stat statfs statx symlink
    symlinkat sync_file_range tee truncate umask unlink unlinkat utime utimensat utimes vmsplice
    write writev cachestat
"""
_WAITING: Final = """
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
    eventfd eventfd2 pause pipe pipe2
    poll ppoll pselect6 select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_settime
"""
_MEMORY: Final = """
    brk madvise memfd_create mincore mlock mlock2 mlockall mmap mprotect mremap msync munlock munlockall
    munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages map_shadow_stack mseal
"""
_PROCESSES: Final = """
    arch_prctl capget capset execve execveat exit exit_group fork futex futex_requeue futex_wait futex_waitv
    futex_wake get_robust_list get_thread_area getegid geteuid getgid getgroups getpgid getpgrp getpid
    getppid getpriority getresgid getresuid getrlimit getrusage getsid gettid getuid ioprio_get ioprio_set
    kill landlock_add_rule landlock_create_ruleset landlock_restrict_self membarrier pidfd_open
    pidfd_send_signal prctl restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
    seccomp set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setpgid
    setpriority setregid setresgid setresuid setreuid setsid setuid sigaltstack sysinfo tgkill
    time times tkill uname vfork wait4 waitid getcpu getrandom
"""
_CLOCKS: Final = """
    alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer timer_create
    timer_delete timer_getoverrun timer_gettime timer_settime
"""
_MESSAGES: Final = """
    accept accept4 bind connect getpeername getsockname getsockopt listen mq_getsetattr mq_notify mq_open
    mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd recvfrom recvmmsg recvmsg semctl
    semget semop semtimedop sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown
"""
_DENIED: Final = """
    mount umount2 move_mount open_tree fsopen fsmount fsconfig fspick mount_setattr pivot_root chroot
    statmount listmount unshare setns ptrace process_vm_readv process_vm_writev process_madvise
    process_mrelease kcmp pidfd_getfd bpf perf_event_open io_uring_setup io_uring_enter io_uring_register
    userfaultfd add_key request_key keyctl kexec_load kexec_file_load init_module finit_module delete_module
    create_module query_module get_kernel_syms name_to_handle_at open_by_handle_at fanotify_init
    fanotify_mark quotactl quotactl_fd reboot swapon swapoff acct settimeofday clock_settime adjtimex
    clock_adjtime iopl ioperm modify_ldt syslog vhangup sethostname setdomainname lookup_dcookie nfsservctl
    _sysctl sysfs ustat uselib memfd_secret migrate_pages move_pages mbind set_mempolicy
    set_mempolicy_home_node get_mempolicy lsm_get_self_attr lsm_set_self_attr lsm_list_modules
"""


def _limits(name: str, argument: int) -> Conditional:
    """Return the rule for a call that sets limits: all but the one on core files."""
    core = Case((Check(argument, RLIMIT_CORE),), NOT_PERMITTED)
    return Conditional(name, (core, Case((below(argument, _RLIMITS),), ALLOW)), NOT_IMPLEMENTED)


_CONDITIONAL: Final = (
    # A new process, yes; a new namespace, no. Its flags are the first argument on x86_64 and on aarch64.
    Conditional("clone", (Case((Check(0, 0, NAMESPACE_FLAGS),), ALLOW),), NOT_PERMITTED),
    # Its flags lie in memory, where a filter cannot look; without it C libraries use clone.
    Conditional("clone3", (), NOT_IMPLEMENTED),
    # Typing into a terminal one shares with its owner: TIOCSTI, TIOCSETD, TIOCLINUX, TIOCCONS.
    Conditional(
        "ioctl",
        tuple(Case((Check(1, request),), NOT_PERMITTED) for request in (0x5412, 0x5423, 0x541C, 0x541D)),
        ALLOW,
    ),
    # The limit on core files stays: it keeps the host's crash handler, which runs as root, from being called.
    _limits("setrlimit", 0),
    # This one also reads it, told by a pointer, and half a pointer is all a check compares: refused as well.
    _limits("prlimit64", 1),
    # Linux, uname 2.6, 32-bit addresses, both, and asking. Not ADDR_NO_RANDOMIZE, nor READ_IMPLIES_EXEC.
    Conditional(
        "personality",
        tuple(Case((Check(0, value),), ALLOW) for value in (0, 0x20000, 0x8, 0x20008, _WHOLE)),
        NOT_IMPLEMENTED,
    ),
    # Unix, IPv4, IPv6, and netlink only for routes: name resolution asks those for the interfaces.
    sockets(
        "socket",
        *(Case((Check(0, family),), ALLOW) for family in (1, 2, 10)),
        Case((Check(0, 16), Check(2, 0)), ALLOW),
        Case((Check(0, 16),), NOT_IMPLEMENTED),
    ),
    # They would write out the whole host's files; what a plugin writes is gone with it anyway.
    Conditional("sync", (), NOTHING_TO_DO),
    Conditional("syncfs", (), NOTHING_TO_DO),
    sockets("socketpair", Case((Check(0, 1),), ALLOW)),
)

PROFILE: Final = Profile(
    allowed=frozenset(
        name
        for group in (_FILES, _WAITING, _MEMORY, _PROCESSES, _CLOCKS, _MESSAGES)
        for name in group.split()
    ),
    denied=frozenset(_DENIED.split()),
    conditional=_CONDITIONAL,
)
