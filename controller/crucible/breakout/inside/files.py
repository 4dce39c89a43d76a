"""Reads what it should not see, and writes what it should not change."""

import os
import stat
from functools import partial
from pathlib import Path
from typing import Any

from outcome import Attempt, Outcome, got, nothing

HOST_FOLDERS = (
    "/root",
    "/home",
    "/var/lib/crucible",
    "/var/lib/docker",
    "/var/lib/kubelet",
    "/run/docker.sock",
    "/run/containerd",
    "/run/systemd",
    "/srv",
    "/boot",
    "/mnt",
    "/media",
    "/oldroot",
    "/newroot",
)
KERNEL_FOLDERS = ("/sys/kernel/debug", "/sys/kernel/tracing", "/sys/kernel/security", "/sys/fs/bpf")
PLACES = ("/created", "/usr/created", "/plugin/created", "/etc/created", "/config/created", "/dev/created")
OWN_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_CTYPE", "PWD", "SHLVL", "_", "PYTHON", "CRUCIBLE_", "HOSTNAME")
CLUSTER_ENVIRONMENT = ("KUBERNETES_",)
"""Where a cluster's API server is: every pod is told, and a NetworkPolicy keeps it from there."""
HOST_DEVICES = (
    "/dev/mem",
    "/dev/kmsg",
    "/dev/sda",
    "/dev/vda",
    "/dev/kvm",
    "/dev/fuse",
    "/dev/net/tun",
    "/dev/port",
    "/dev/loop-control",
    "/dev/mapper/control",
    "/dev/vsock",
)
KERNEL_SETTINGS = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/vm/overcommit_memory",
    "/sys/kernel/uevent_helper",
    "/sys/power/state",
)
CLUSTER_CREDENTIAL = "/var/run/secrets/kubernetes.io/serviceaccount/token"


def attempts(config: dict[str, Any]) -> dict[str, Attempt]:
    """Return what to try."""
    wanted = [*config.get("hostFiles", []), "/etc/shadow", CLUSTER_CREDENTIAL]
    rw = partial(write_and_read, "/tmp/own")
    own = partial(read_own, __file__)
    return {
        **{f"read {path}": Attempt("rootFilesystem", partial(read, path), own) for path in wanted},
        **{
            f"read {path} through /proc/1/root": Attempt(
                "namespaces", partial(read, f"/proc/1/root{path}"), own
            )
            for path in wanted
        },
        "list host folders": Attempt("rootFilesystem", list_folders, list_own),
        "list the kernel's own folders": Attempt("rootFilesystem", list_kernel, list_own),
        "reach the host through /proc/1/root": Attempt("namespaces", through_init, list_own),
        "reach the host through /proc/1/cwd": Attempt("namespaces", through_cwd, list_own),
        "climb out of the root": Attempt("rootFilesystem", climb, list_own),
        "find a set-uid program": Attempt("rootFilesystem", find_set_uid, list_own),
        "make a set-uid program that works": Attempt(
            "privileges", partial(make_set_uid, pod=bool(config.get("pod"))), partial(run_own, "/tmp/ran")
        ),
        "find descriptors left open": Attempt("namespaces", find_descriptors, duplicate),
        "open the first process's descriptors": Attempt("privileges", open_init, duplicate),
        "find secrets in the environment": Attempt("namespaces", find_environment, find_own_environment),
        **{f"write {place}": Attempt("rootFilesystem", partial(write, place), rw) for place in PLACES},
        "change the manifest's config": Attempt(
            "rootFilesystem", partial(append, os.environ["CRUCIBLE_CONFIG"]), rw
        ),
        "change its own program": Attempt("rootFilesystem", partial(append, __file__), rw),
        "replace its own program": Attempt("rootFilesystem", replace_own, partial(rename_own, "/tmp/moved")),
        "change the password file": Attempt("rootFilesystem", partial(append, "/etc/passwd"), rw),
        "change its interpreter": Attempt("rootFilesystem", partial(append, "/proc/self/exe"), rw),
        "change the kernel's settings": Attempt("rootFilesystem", change_settings, rw),
        "open host devices": Attempt("rootFilesystem", open_devices, read_devices),
        "write to a cgroup": Attempt("namespaces", write_cgroup, rw),
        "plant a link that the host would follow": Attempt("rootFilesystem", plant_link, link_own),
    }


def read(path: str) -> Outcome:
    """Read a file of the host."""
    return got(f"read {len(Path(path).read_bytes())} bytes of {path}")


def read_own(path: str) -> bool:
    """Read its own program."""
    return b"def attempts" in Path(path).read_bytes()


def list_folders() -> Outcome:
    """List folders that only a host has."""
    found = [folder for folder in HOST_FOLDERS if _filled(folder)]
    return got(f"found {found}") if found else nothing("none of them is there")


def list_kernel() -> Outcome:
    """List folders through which the kernel is looked into."""
    found = [folder for folder in KERNEL_FOLDERS if _filled(folder)]
    return got(f"found {found}") if found else nothing("none of them is there")


def _filled(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
        return not stat.S_ISDIR(mode) or bool(os.listdir(path))
    except OSError:
        return False


def list_own() -> bool:
    """List its own files."""
    return "main.py" in os.listdir(os.environ["CRUCIBLE_SOURCE"])


def through_init() -> Outcome:
    """Follow the root of the sandbox's first process."""
    outside = set(os.listdir("/proc/1/root")) - set(os.listdir("/"))
    return got(f"saw {sorted(outside)}") if outside else nothing("it is the same root")


def through_cwd() -> Outcome:
    """Follow the working directory of the sandbox's first process upwards."""
    above = os.open("/proc/1/cwd", os.O_PATH)
    for _ in range(32):
        above = os.open("..", os.O_PATH, dir_fd=above)
    found, here = os.fstat(above), os.stat("/")
    same = (found.st_dev, found.st_ino) == (here.st_dev, here.st_ino)
    return nothing("it ends at the same root") if same else got("it ends elsewhere")


def climb() -> Outcome:
    """Go up from the root, as a process could that held a descriptor from outside."""
    above, here = Path("/../../..").stat(), Path("/").stat()
    same = (above.st_dev, above.st_ino) == (here.st_dev, here.st_ino)
    return nothing("there is nothing above") if same else got("there is something above")


def find_set_uid() -> Outcome:
    """Look for programs that run as someone else, where that would have an effect."""
    held = _gains_nothing()
    for folder, below, names in os.walk("/"):
        if folder == "/":
            below[:] = [name for name in below if name not in {"proc", "sys"}]
        for name in names:
            mode = os.lstat(os.path.join(folder, name)).st_mode
            if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID) and not held:
                return got(f"{folder}/{name}")
    return nothing("no file has the bit, or it has no effect")


def _gains_nothing() -> bool:
    with open("/proc/self/status") as status:
        return any(line.split() == ["NoNewPrivs:", "1"] for line in status)


def make_set_uid(*, pod: bool) -> Outcome:
    """Run a program of its own with the bit of another group, where the place lets it have an effect.

    A volume of a pod heeds the bit; there it is no_new_privs alone that takes its effect.
    """
    os.makedirs("/tmp/bits", exist_ok=True)
    if pod and _gains_nothing():
        return nothing("no_new_privs keeps it without effect")
    flags = os.statvfs("/tmp/bits").f_flag
    return nothing("/tmp ignores the bit") if flags & os.ST_NOSUID else got("/tmp honours the bit")


def run_own(place: str) -> bool:
    """Run its own interpreter, as any program may start another."""
    child = os.fork()
    if child == 0:
        os.execv("/proc/self/exe", ["python", "-c", f"open({place!r}, 'w').write('ran')"])
    os.waitpid(child, 0)
    return Path(place).read_text() == "ran"


def find_descriptors() -> Outcome:
    """Look for descriptors that its starter forgot: beyond the standard three, its pipe and this listing."""
    own = {"pipe", "anon_inode"}
    kept: list[str] = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own
        if int(name) > 2 and target.partition(":")[0] not in own:
            kept.append(f"{name} -> {target}")
    return got(str(kept)) if kept else nothing("none")


def open_init() -> Outcome:
    """Open, through the first process's descriptors, what the controller reads later, and write there."""
    reached: list[str] = []
    for name in os.listdir("/proc/1/fd"):
        if int(name) <= 2:
            continue  # the plugin's own output, which it may write to
        try:
            descriptor = os.open(f"/proc/1/fd/{name}", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
        except OSError:
            continue
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            reached.append(os.readlink(f"/proc/1/fd/{name}"))
    return got(f"could write to {reached}") if reached else nothing("nothing of it can be written to")


def duplicate() -> bool:
    """Use descriptors of its own."""
    copy = os.dup(1)
    os.close(copy)
    return copy > 2


def find_environment() -> Outcome:
    """Look for variables of whoever started it."""
    foreign = [name for name in os.environ if not name.startswith((*OWN_ENVIRONMENT, *CLUSTER_ENVIRONMENT))]
    return got(f"found {foreign}") if foreign else nothing("only its own variables")


def find_own_environment() -> bool:
    """Find the variables that it is promised."""
    return {"CRUCIBLE_PLUGIN", "CRUCIBLE_INSTANCE", "CRUCIBLE_CONFIG", "HOME"} <= set(os.environ)


def write(place: str) -> Outcome:
    """Create a file where everything is read-only."""
    Path(place).write_text("here")
    return got(f"wrote {place}")


def write_and_read(place: str) -> bool:
    """Write where it may, and read it back."""
    Path(place).write_text("mine")
    return Path(place).read_text() == "mine"


def append(path: str) -> Outcome:
    """Change a file that is there."""
    with open(path, "a") as file:
        file.write("\n")
    return got(f"changed {path}")


def replace_own() -> Outcome:
    """Put another file in the place of its program."""
    Path("/tmp/other").write_text("other")
    os.rename("/tmp/other", __file__)
    return got("replaced it")


def rename_own(place: str) -> bool:
    """Rename a file of its own."""
    Path(f"{place}.new").write_text("mine")
    os.rename(f"{place}.new", place)
    return Path(place).read_text() == "mine"


def change_settings() -> Outcome:
    """Write to files that change the whole host."""
    last = ""
    for path in KERNEL_SETTINGS:
        try:
            with open(path, "a"):
                return got(f"opened {path} for writing")
        except OSError as error:
            last = str(error)
    return nothing(last)


def open_devices() -> Outcome:
    """Open devices of the host."""
    found = [path for path in HOST_DEVICES if Path(path).exists()]
    return got(f"found {found}") if found else nothing("none is there")


def read_devices() -> bool:
    """Use the devices that every program needs."""
    Path("/dev/null").write_bytes(b"away")
    zero, random = os.open("/dev/zero", os.O_RDONLY), os.open("/dev/urandom", os.O_RDONLY)
    return os.read(zero, 4) == bytes(4) and os.read(random, 16) != os.read(random, 16)


def write_cgroup() -> Outcome:
    """Find its own limits, and lift them."""
    for line in Path("/proc/mounts").read_text().splitlines():
        kind, where = line.split()[2], line.split()[1]
        if kind in {"cgroup", "cgroup2"}:
            for folder, _, names in os.walk(where):
                open_ones = [name for name in names if os.access(f"{folder}/{name}", os.W_OK)]
                if open_ones and not os.statvfs(folder).f_flag & os.ST_RDONLY:
                    return got(f"{folder}/{open_ones[0]} can be written")
    return nothing("no cgroup can be written")


def plant_link() -> Outcome:
    """Put a link where the host reads: its source and its configuration are read by the controller too."""
    last = ""
    for folder in (os.environ["CRUCIBLE_SOURCE"], os.path.dirname(os.environ["CRUCIBLE_CONFIG"])):
        for make in (os.symlink, os.mkfifo):
            try:
                arguments = ("/etc/passwd", f"{folder}/link") if make is os.symlink else (f"{folder}/pipe",)
                make(*arguments)
            except OSError as error:
                last = str(error)
            else:
                return got(f"made one in {folder}")
    return nothing(last)


def link_own() -> bool:
    """Make links among its own files."""
    os.symlink("/etc/passwd", "/tmp/link")
    os.mkfifo("/tmp/pipe")
    return os.path.islink("/tmp/link")
