"""What a program that is not ours can reach once it is enclosed, tried from inside."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from crucible.companions.confine import landlock_version
from crucible.companions.enclose import become

if TYPE_CHECKING:
    from pathlib import Path

UID = 1_890_123_456
INSIDE = r"""
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <unistd.h>

static void limited(const char *what, int which) {
    struct rlimit limit;
    printf("%s %lld\n", what, getrlimit(which, &limit) ? -1LL : (long long)limit.rlim_max);
}

static void tried(const char *what, int answer) { printf("%s %d\n", what, answer < 0 ? errno : 0); }

static int at(int port, int (*verb)(int, const struct sockaddr *, socklen_t)) {
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(port)};
    place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return verb(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&place, sizeof place);
}

int main(int count, char **words) {
    printf("uid %d\n", (int)getuid());
    printf("gid %d\n", (int)getegid());
    printf("groups %d\n", getgroups(0, NULL));
    printf("filtered %d\n", prctl(PR_GET_SECCOMP));
    printf("renounced %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    limited("files", RLIMIT_NOFILE);
    limited("written", RLIMIT_FSIZE);
    tried("own", open("own", O_CREAT | O_WRONLY, 0600));
    tried("folder", mkdir("more", 0700));
    tried("outside", open(words[3], O_RDONLY));
    tried("write", open("/tmp/crucible-enclosed", O_CREAT | O_WRONLY, 0600));
    tried("etc", open("/etc/hostname", O_WRONLY));
    tried("proc", open("/proc/self/environ", O_RDONLY));
    tried("listen", at(atoi(words[1]), bind));
    tried("elsewhere", at(0, bind));
    tried("connect", at(atoi(words[2]), connect));
    tried("mount", mount("x", "/", "tmpfs", 0, 0));
    tried("become", setuid(0));
    tried("signal", kill(getppid(), 0));
    execl("/bin/true", "true", NULL);
    tried("run", -1);
    return count != 4;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that needs nothing but itself, as the server is."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "inside.c").write_text(INSIDE)
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc: make setup installs it")
    subprocess.run(["gcc", "-static", "-o", folder / "inside", folder / "inside.c"], check=True)
    return folder / "inside"


def enclosed(folder: Path, program: Path, uid: int | None) -> dict[str, int]:
    """Run it in a folder of its own; return what it found."""
    own, secret = folder / "own", folder / "secret"
    own.mkdir()
    secret.write_text("x")
    secret.chmod(0o644)
    if uid is not None:
        os.chown(own, uid, uid)
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        ports = [str(one.getsockname()[1]) for one in (free, taken)]
        free.close()
        hear, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            _run(tell, program, own, uid, [*ports, str(secret)])
        os.close(tell)
        with os.fdopen(hear) as told:
            lines = told.read().splitlines()
        os.waitpid(pid, 0)
    return {name: int(number) for name, number in (line.split() for line in lines)}


def _run(tell: int, program: Path, own: Path, uid: int | None, words: list[str]) -> None:
    """Become the program; a child of a fork must not go on as the test."""
    try:
        os.dup2(tell, 1)
        if uid is not None:
            os.setgroups([UID + 1])  # of whoever starts it, and not its own
        opened = [os.open(place, os.O_RDONLY | os.O_CLOEXEC) for place in (program, own)]
        become(uid, opened[1], opened[0], int(words[0]), ["inside", *words], {})
    except BaseException as error:  # noqa: BLE001 - it is told, and ends here
        os.write(2, repr(error).encode())
    finally:
        os._exit(1)


@pytest.mark.skipif(landlock_version() < 4, reason="needs Landlock 4, of Linux 6.7")
def test_it_reaches_its_folder_and_its_port_and_nothing_else(tmp_path: Path, program: Path) -> None:
    uid = UID if os.geteuid() == 0 else None
    found = enclosed(tmp_path, program, uid)
    if uid is not None:
        assert (found["uid"], found["gid"], found["become"]) == (uid, uid, errno.EPERM)
        assert found["groups"] == 0
    assert (found["filtered"], found["renounced"]) == (2, 1)
    assert 0 < found["files"] <= 65536
    assert found["written"] == 1 << 36
    assert {name for name in ("own", "folder", "listen") if found[name]} == set()
    for refused in ("outside", "write", "etc", "proc", "elsewhere", "connect", "run"):
        assert found[refused] == errno.EACCES, refused
    assert found["mount"] == errno.EPERM
    if uid is not None or landlock_version() >= 6:
        assert found["signal"] == errno.EPERM
