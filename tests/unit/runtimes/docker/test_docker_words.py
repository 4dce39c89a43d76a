"""The runtime's translations: labels, ends, errors, progress, names of images, bodies of networks."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from docker import errors
from hypothesis import given
from hypothesis import strategies as st

from crucible.errors import InvalidSource, Unavailable
from crucible.model.workload import Slot
from crucible.runtimes.docker import network
from crucible.runtimes.docker.body import Image
from crucible.runtimes.docker.engine import agreed, refuse_imitation, trouble_of, unreachable
from crucible.runtimes.docker.events import read_event
from crucible.runtimes.docker.held import exit_of_code, exit_of_inspection, init_problem, unix_time
from crucible.runtimes.docker.images import image_of_inspection, pinned
from crucible.runtimes.docker.labels import CONTROL_PLANE, PLUGIN_UID, SLOT, name_of, slot_of
from crucible.runtimes.docker.pulls import Pull, failure_of
from crucible.runtimes.docker.streams import CUT, LONGEST, lines_of
from crucible.runtimes.docker.usage import usage_of

WORDS = st.text(max_size=12)
STAMP = b"2026-01-31T09:30:00.5Z "
AT = 1769851800.5
ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64


@given(ordinal=st.integers(0, 99), attempt=st.integers(1, 999))
def test_our_own_labels_and_name_are_known_again(ordinal: int, attempt: int) -> None:
    slot = Slot(ordinal, attempt)
    labels = {CONTROL_PLANE: "p", PLUGIN_UID: "u", SLOT: str(slot)}
    assert slot_of(labels, "/" + name_of("p", "u", slot), "p") == slot
    assert slot_of(labels, "/" + name_of("p", "u", slot), "q") is None
    assert slot_of(labels, "/by-hand", "p") is None
    assert slot_of({**labels, CONTROL_PLANE: "q"}, "/" + name_of("p", "u", slot), "p") is None
    assert slot_of({PLUGIN_UID: "u", SLOT: str(slot)}, "/" + name_of("p", "u", slot), "p") is None


@given(labels=st.dictionaries(st.sampled_from([CONTROL_PLANE, PLUGIN_UID, SLOT]), WORDS), name=WORDS)
def test_labels_that_nobody_of_us_wrote_are_nobodys(labels: dict[str, str], name: str) -> None:
    assert slot_of(labels, name, "plane") is None


@pytest.mark.parametrize("text", ["", "0", "0-", "-1", "a-1", "0-1-2", "²-1", "0-1 "])
def test_a_slot_that_is_none_is_none(text: str) -> None:
    labels = {CONTROL_PLANE: "p", PLUGIN_UID: "u", SLOT: text}
    assert slot_of(labels, f"/crucible-p-u-{text}", "p") is None


@given(code=WORDS | st.sampled_from(["--5", "-", "²", "9" * 5000, "1_0", " 1", "0", "137", "-1"]))
def test_whatever_stands_for_the_code_of_an_end_is_a_number(code: str) -> None:
    """Engines put a container's labels over it, and whoever made its image wrote those."""
    told = {"Action": "die", "Actor": {"ID": "c", "Attributes": {"exitCode": code}}, "timeNano": 10**9}
    found = read_event(told)
    assert (found.kind, found.container, found.at) == ("die", "c", 1.0)
    assert found.code in {0, 137, -1} or code.removeprefix("-").isascii()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"exitCode": "0"}, "LABEL exitCode hides how its containers end: remove it"),
        ({"x": "y" * (1 << 16)}, "labels have more than 65536 bytes"),
    ],
)
def test_labels_that_are_in_the_way_refuse_an_image(labels: dict[str, str], words: str) -> None:
    found = {"Id": ONE, "Config": {"Labels": labels}}
    with pytest.raises(InvalidSource, match=words):
        image_of_inspection(found, of_type=False)
    assert image_of_inspection({"Id": ONE, "Config": {"Labels": {"a": "b"}}}, of_type=False).id == ONE


def test_codes_of_the_init_process_are_codes_or_signals() -> None:
    assert exit_of_code(3, 1.0, oom=False).code == 3
    assert exit_of_code(143, 1.0, oom=False).signal == signal.SIGTERM
    assert exit_of_code(137, 1.0, oom=True).oom
    assert not exit_of_code(143, 1.0, oom=True).oom
    assert exit_of_code(255, 1.0, oom=False).code == 255


def test_an_inspection_says_when_and_why() -> None:
    state: dict[str, Any] = {"ExitCode": 137, "OOMKilled": True, "FinishedAt": "2026-01-31T09:30:00.5Z"}
    found = exit_of_inspection({"State": state}, 7.0)
    assert (found.at, found.signal, found.oom) == (AT, 9, True)
    failed = exit_of_inspection({"State": {"ExitCode": 128, "Error": "no such file"}}, 7.0)
    assert (failed.at, failed.problem) == (7.0, "no such file")
    assert unix_time("0001-01-01T00:00:00Z") is None
    assert unix_time("nonsense") is None


def test_the_init_process_own_words_are_told_from_a_programs() -> None:
    assert init_problem(b"[FATAL tini (7)] exec /x failed: No such file") == (
        "the program cannot be executed: /x failed: No such file"
    )
    assert init_problem(b"FATAL") == ""


@pytest.mark.parametrize(
    ("oldest", "newest", "wanted"),
    [("1.12", "1.41", "1.41"), ("1.24", "1.51", "1.47"), ("1.44", "1.47", "1.47")],
)
def test_the_newest_version_both_speak_is_spoken(oldest: str, newest: str, wanted: str) -> None:
    assert agreed(oldest, newest) == wanted


def test_errors_name_the_fix() -> None:
    assert "usermod -aG docker" in unreachable("unix:///s", PermissionError(13, "Permission denied"))
    assert "systemctl start docker" in unreachable("unix:///s", FileNotFoundError(2, "No such file"))
    assert "does not answer in time" in unreachable("unix:///s", requests.ReadTimeout())
    assert "cannot be reached: odd" in unreachable("unix:///s", OSError("odd"))
    answer: Any = SimpleNamespace(status_code=500)
    full = errors.APIError("x", answer, "write: no space left on device")
    assert "docker system df" in str(trouble_of(full))
    assert trouble_of(errors.APIError("x", answer, "no such option")) is None


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("manifest unknown", InvalidSource, "does not exist in its registry"),
        ("pull access denied for x", InvalidSource, "docker login"),
        ("unauthorized: authentication required", InvalidSource, "docker login"),
        ("dial tcp: lookup r.example: no such host not found", Unavailable, "does not answer"),
        ("no matching manifest for linux/arm64", InvalidSource, "engine's machine"),
        ("filesystem layer verification failed for digest", InvalidSource, "not what its digest names"),
        ("write /x: no space left on device", Unavailable, "is full"),
        ("unexpected HTTP status: 503", Unavailable, "does not answer"),
    ],
)
def test_a_failed_pull_is_named_for_what_it_is(text: str, kind: type[Exception], words: str) -> None:
    found = failure_of("localhost/x:1", text)
    assert isinstance(found, kind)
    assert words in str(found)


def test_progress_is_of_all_layers_together() -> None:
    pull = Pull(heard=0.0, said=0.0)
    assert pull.progress == ""
    for layer, had in (("a", 1 << 19), ("b", 0)):
        detail = {"current": had, "total": 1 << 20}
        pull.hear({"id": layer, "status": "Downloading", "progressDetail": detail}, 1.0)
    assert pull.progress == ": 25 % of 2.0 MiB"
    pull.hear({"id": "a", "status": "Download complete"}, 2.0)
    assert (pull.progress, pull.heard) == (": 50 % of 2.0 MiB", 2.0)
    pull.hear({"id": "b", "status": "Retrying in 5 seconds"}, 3.0)
    assert pull.progress.endswith("the registry broke off, it is tried again")


def test_an_image_is_pinned_by_the_digest_of_its_own_repository() -> None:
    found = {"Id": ONE, "RepoDigests": [f"r/other@{TWO}", f"r:5000/mine@{TWO}", "broken"]}
    assert pinned("r:5000/mine:1", found) == (TWO, f"r:5000/mine@{TWO}")
    assert pinned("built-here", found) == (ONE, ONE)
    assert pinned(f"r/any@{TWO}", found) == (TWO, f"r/any@{TWO}")
    with pytest.raises(InvalidSource, match="is another"):
        pinned("r/any@sha256:33", found)
    hub = {"Id": ONE, "RepoDigests": [f"x@{TWO}"]}
    assert pinned("docker.io/library/x:1", hub) == (TWO, f"x@{TWO}")


@pytest.mark.parametrize(
    "path", ["/", "data", "/a/../b", "/proc/x", "/dev", "/plugin", "/a:rw", "/a,b", "//a"]
)
def test_volumes_at_odd_places_are_refused(path: str) -> None:
    with pytest.raises(InvalidSource, match="remove its VOLUME lines"):
        image_of_inspection({"Id": ONE, "Config": {"Volumes": {path: {}}}}, of_type=False)


def test_only_a_types_own_image_says_how_programs_are_run() -> None:
    marks = {"dev.crucible.entrypoint": '["/i"]', "dev.crucible.env": '{"A":"b"}'}
    found = {"Id": ONE, "Config": {"Labels": marks, "Volumes": {"/b": {}, "/a": {}}}}
    assert image_of_inspection(found, of_type=False) == Image(ONE, volumes=("/a", "/b"))
    assert image_of_inspection(found, of_type=True) == Image(ONE, ("/i",), (("A", "b"),), ("/a", "/b"))


def test_a_plugins_network_leads_nowhere() -> None:
    found = network.network_arguments("p", "u", (80, 81))
    assert found["internal"]
    assert found["options"] == {"com.docker.network.bridge.inhibit_ipv4": "true"}
    assert network.ports_of(found["labels"]) == (80, 81)
    assert network.edge_arguments("p")["options"] == {"com.docker.network.bridge.enable_icc": "false"}


def test_a_relay_is_reached_from_loopback_only_and_holds_nothing() -> None:
    host = network.relay_body("p", "u", (80,), Image(ONE), {})["HostConfig"]
    assert host["PortBindings"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    assert (host["CapDrop"], host["ReadonlyRootfs"]) == (["ALL"], True)
    assert not {"CapAdd", "Binds", "Privileged", "Devices"} & set(host)
    assert host["Mounts"] == []
    assert host["Dns"] == [network.NOWHERE]


@pytest.mark.parametrize(
    ("joined", "mode", "state", "cut"),
    [
        ({"crucible-cp-u": {"NetworkID": "known"}}, "crucible-cp-u", "running", False),
        ({"crucible-cp-u": {"NetworkID": "gone"}}, "crucible-cp-u", "running", True),
        ({"crucible-cp-u": {"NetworkID": "gone"}}, "crucible-cp-u", "exited", False),
        ({"crucible-cp-u": {"NetworkID": ""}}, "crucible-cp-u", "created", False),
        ({}, "crucible-cp-u", "running", True),
        ({"crucible-cp-edge": {"NetworkID": "gone"}}, "crucible-cp-edge", "running", True),
        ({"none": {"NetworkID": "another"}}, "none", "running", False),
    ],
)
def test_who_is_cut_off_is_told_from_the_engines_lists(
    joined: dict[str, dict[str, str]], mode: str, state: str, *, cut: bool
) -> None:
    entry = {
        "State": state,
        "Labels": {CONTROL_PLANE: "cp"},
        "HostConfig": {"NetworkMode": mode},
        "NetworkSettings": {"Networks": joined},
    }
    assert network.cut_off(entry, {"known"}) is cut


def test_a_line_has_its_first_time_and_a_bounded_length() -> None:
    frames = [STAMP + b"a", b"x b\n", STAMP + b"\n", STAMP + b"y" * 20000, STAMP + b"y" * 20000 + b"\n"]
    first, empty, long = lines_of(frames)
    assert (first.at, first.text, empty.text) == (AT, b"ab", b"")
    assert long.text == b"y" * LONGEST + CUT
    assert [line.text for line in lines_of([STAMP + b"no end"])] == [b"no end"]


def test_usage_is_read_of_both_versions_of_cgroups() -> None:
    found = {
        "read": "2026-01-31T09:30:00.5Z",
        "cpu_stats": {
            "cpu_usage": {"total_usage": 2_000_000_000},
            "throttling_data": {"throttled_time": 5e8},
        },
        "memory_stats": {"usage": 1000, "max_usage": 2000, "stats": {"total_inactive_file": 300}},
        "pids_stats": {"current": 3},
    }
    used = usage_of(found)
    assert used is not None
    assert (used.at, used.cpu, used.memory, used.memory_peak, used.pids, used.throttled) == (
        (AT, 2.0, 700, 2000, 2, 0.5)
    )
    second = usage_of(found | {"memory_stats": {"usage": 1000, "stats": {"inactive_file": 100}}})
    assert second is not None
    assert (second.memory, second.memory_peak) == (900, None)
    assert usage_of({"read": "0001-01-01T00:00:00Z"}) is None


def test_podman_is_refused_with_what_to_do_instead() -> None:
    refuse_imitation({"Components": [{"Name": "Engine"}, {"Name": "containerd"}]})
    refuse_imitation({})
    with pytest.raises(Unavailable, match="use --runtime process"):
        refuse_imitation({"Components": [{"Name": "Podman Engine"}, {"Name": "Conmon"}]})
