# A program of the sandbox, in an attacker's terse style: the rules of the product's own code do not apply.
# ruff: noqa: ANN001, ANN002, ANN201, PTH110, PTH112, PTH115, PTH116, PTH123, PTH207, PTH208, S605, SIM115, T201
"""Runs inside the sandbox: tries to do what it must not, and says how each attempt went, as JSON."""

import ctypes
import errno
import glob
import json
import os
import resource
import socket
import sys

libc = ctypes.CDLL(None, use_errno=True)
found = {}


def attempt(name, function):
    try:
        found[name] = function()
    except ValueError:
        found[name] = "EINVAL"
    except OSError as error:
        found[name] = errno.errorcode.get(error.errno, str(error))


def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(
        ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    )
    return errno.errorcode[ctypes.get_errno()] if result == -1 else f"returned {result}"


def read(path):
    with open(path, "rb") as file:
        return file.read(4096).decode(errors="replace")


def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as link:
        link.settimeout(2)
        link.connect(address)
        return "connected"


told = json.load(open(os.environ["CRUCIBLE_CONFIG"]))
status = dict(line.split(":", 1) for line in read("/proc/self/status").splitlines())
found["status"] = {key: value.strip() for key, value in status.items()}
found["descriptors"] = sorted(
    os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd in "012"
)
found["other descriptors"] = [
    fd
    for fd in range(3, 4096)
    if os.path.exists(f"/proc/self/fd/{fd}") and "/proc/" not in os.readlink(f"/proc/self/fd/{fd}")
]
found["environment"] = dict(os.environ)
found["ids"] = [os.getuid(), os.geteuid(), os.getgid(), os.getegid(), os.getgroups()]
found["host name"] = socket.gethostname()
found["interfaces"] = [name for _, name in socket.if_nameindex()]
found["processes"] = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
found["init environment"] = read("/proc/1/environ") if os.access("/proc/1/environ", os.R_OK) else ""
found["root"] = sorted(os.listdir("/"))
found["programs"] = sorted(os.listdir("/usr/bin"))
found["devices"] = sorted(os.listdir("/dev"))
found["mount points"] = sorted(line.split()[4] for line in read("/proc/self/mountinfo").splitlines())
found["hosts"] = [
    path for path in ("/root", "/home", "/etc/shadow", "/sys", "/var", "/oldroot") if os.path.exists(path)
]
found["run"] = sorted(os.listdir("/run")) if os.path.isdir("/run") else []
found["setuid files"] = [p for p in glob.glob("/usr/bin/*") if os.stat(p).st_mode & 0o6000]
found["shell"] = os.system("true") >> 8
found["cgroup"] = read("/proc/self/cgroup").split()

for name, path in told["files"].items():
    attempt(f"read {name}", lambda path=path: read(path))
for path in (
    "/x",
    "/usr/x",
    "/plugin/x",
    "/plugin/main.py",
    "/config/config.json",
    "/dev/x",
    "/etc/passwd",
    "/proc/sys/kernel/hostname",
):
    attempt(f"write {path}", lambda path=path: open(path, "a").write("x") and "written")
attempt("write /tmp/x", lambda: open("/tmp/x", "w").write("x") and "written")
attempt("write /dev/null", lambda: open("/dev/null", "w").write("x") and "written")
attempt("reopen stdout", lambda: open("/dev/stdout", "w").write("") == 0 and "opened")
attempt("host loopback", lambda: connect(socket.AF_INET, ("127.0.0.1", told["port"])))
attempt("world", lambda: connect(socket.AF_INET, ("192.0.2.1", 80)))
attempt("abstract socket", lambda: connect(socket.AF_UNIX, "\0" + told["abstract"]))
attempt("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1) and "made")
attempt("packet socket", lambda: socket.socket(17, socket.SOCK_RAW, 0) and "made")
attempt("vsock", lambda: socket.socket(40, socket.SOCK_STREAM, 0) and "made")
attempt("alg socket", lambda: socket.socket(38, socket.SOCK_SEQPACKET, 0) and "made")
attempt("netlink audit", lambda: socket.socket(16, socket.SOCK_RAW, 9) and "made")
attempt("setuid", lambda: os.setuid(0) or "done")
attempt("setgid", lambda: os.setgid(0) or "done")
attempt("chown", lambda: os.chown("/tmp/x", 0, 0) or "done")
attempt("device", lambda: os.mknod("/tmp/mem", 0o20666, os.makedev(1, 1)) or "done")
attempt("raise files", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (9999, 9999)) or "done")
attempt("kill host", lambda: os.kill(told["pid"], 0) or "done")
attempt("nice", lambda: os.setpriority(os.PRIO_PROCESS, 0, -10) or "done")
if os.uname().machine == "x86_64":
    numbers = {
        "mount": (165, 0, 0, 0, 0, 0),
        "umount": (166, 0, 0),
        "unshare user": (272, 0x10000000),
        "unshare mount": (272, 0x20000),
        "unshare net": (272, 0x40000000),
        "clone user": (56, 0x10000011, 0, 0, 0, 0),
        "setns": (308, 0, 0),
        "ptrace": (101, 0, 0, 0, 0),
        "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
        "bpf": (321, 0, 0, 0),
        "perf_event_open": (298, 0, 0, 0, 0, 0),
        "io_uring_setup": (425, 1, 0),
        "userfaultfd": (323, 0),
        "keyctl": (250, 0, 0, 0, 0, 0),
        "add_key": (248, 0, 0, 0, 0, 0),
        "open_by_handle_at": (304, 0, 0, 0),
        "pivot_root": (155, 0, 0),
        "chroot": (161, 0),
        "kexec_load": (246, 0, 0, 0, 0),
        "init_module": (175, 0, 0, 0),
        "reboot": (169, 0, 0, 0, 0),
        "swapon": (167, 0, 0),
        "settimeofday": (164, 0, 0),
        "iopl": (172, 3),
        "syslog": (103, 3, 0, 0),
        "fsopen": (430, 0, 0),
        "open_tree": (428, 0, 0, 0),
        "move_mount": (429, 0, 0, 0, 0, 0),
        "acct": (163, 0),
        "quotactl": (179, 0, 0, 0, 0),
        "sethostname": (170, 0, 0),
        "pidfd_getfd": (438, 0, 0, 0),
        "x32 getpid": (0x40000000 | 39,),
        "personality": (135, 0x40000),
        "TIOCSTI": (16, 0, 0x5412, 0),
        "clone3": (435, 0, 0),
        "unknown": (999,),
    }
    found["calls"] = {name: call(*arguments) for name, arguments in numbers.items()}
print(json.dumps(found))
sys.stdout.flush()
