from __future__ import annotations

from pathlib import Path

import pytest
from build import plugin
from hypothesis import given
from hypothesis import strategies as st

from crucible.core.admission import violations_of
from crucible.core.volumes import problem_of, protected

HOME = Path("/home/ada")
CLOSED = protected((HOME,), (Path("/var/lib/state"), Path("/srv/engine/docker.sock")))
PATHS = st.lists(st.sampled_from(["a", "b", "proc", "home", "ada", ".ssh"]), min_size=1, max_size=4).map(
    lambda parts: Path("/", *parts)
)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/",
            "/proc",
            "/proc/1",
            "/sys/fs/cgroup",
            "/dev",
            "/dev/shm",
            "/etc",
            "/etc/ssh",
            "/run/docker.sock",
        ),
        *("/var", "/var/lib", "/var/lib/state", "/var/lib/state/control", "/var/lib/docker/volumes"),
        *("/home", "/home/ada", "/home/ada/.ssh", "/home/ada/.kube/cache", "/srv", "/srv/engine"),
    ],
)
def test_a_folder_that_would_show_what_is_closed_is_no_volume(path: str) -> None:
    assert problem_of(Path(path), CLOSED, ())


@pytest.mark.parametrize("path", ["/srv/notes", "/home/ada/notes", "/home/adam", "/var/lib/states", "/data"])
def test_a_folder_of_its_own_is_one(path: str) -> None:
    assert problem_of(Path(path), CLOSED, ()) == ""


def test_volumes_lie_apart() -> None:
    others = (Path("/srv/notes"),)
    for path in ("/srv/notes", "/srv/notes/inner"):
        assert "overlaps with /srv/notes" in problem_of(Path(path), (), others)
    assert problem_of(Path("/srv/notes2"), (), others) == ""


@given(path=PATHS)
def test_no_volume_holds_or_lies_in_what_is_closed(path: Path) -> None:
    if problem_of(path, CLOSED, ()) == "":
        assert not any(each.is_relative_to(path) or path.is_relative_to(each) for each in CLOSED)


@pytest.mark.parametrize(
    "mount",
    ["/data", "/data/", "/data/..", "/data/.", "/data/a/b", "/datax", "/data/.x", "/data/a\n"],
)
def test_a_mount_stays_below_data(mount: str) -> None:
    assert violations_of(plugin(capabilities={"files": [{"volume": "notes", "mount": mount}]}))


def test_two_volumes_cannot_have_one_place() -> None:
    twice = [{"volume": name, "mount": "/data/x"} for name in ("notes", "maps")]
    (violation,) = violations_of(plugin(capabilities={"files": twice}))
    assert str(violation) == "spec.capabilities.files[1].mount: /data/x is taken: choose another"


@pytest.mark.parametrize("volume", ["", "../up", "/srv", "A", "a/b", "a."])
def test_a_manifest_names_a_volume_and_no_path(volume: str) -> None:
    assert violations_of(plugin(capabilities={"files": [{"volume": volume, "mount": "/data/x"}]}))
