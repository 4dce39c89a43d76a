"""What a workload becomes on a cluster, word for word, and what no workload can ever become."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crucible.core.admission import admit
from crucible.core.render import render
from crucible.errors import InvalidInput
from crucible.model.door import Door
from crucible.model.manifest import PreStop
from crucible.model.plugin import read_identity
from crucible.model.probe import Health
from crucible.model.secret import SecretVariable
from crucible.model.status import SourceReport
from crucible.model.volume import ClaimVolume, Mount
from crucible.model.workload import Limits, Slot
from crucible.runtimes.kubernetes import marks
from crucible.runtimes.kubernetes.compile import pod
from crucible.runtimes.kubernetes.settings import DoorService, KubernetesSettings
from crucible.runtimes.kubernetes.surroundings import repair, surroundings
from crucible.runtimes.kubernetes.volumes import config_map

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[4] / "scripts"))

from workloads import FILES, FIRST, UID, workload

GOLDEN = Path(__file__).with_name("golden")
VERSIONS = ("1.30", "1.37")
OWNER = marks.Owner("team-a", "word-count", UID)
SETTINGS = KubernetesSettings(images="example.org/crucible", tag="1.0.0")
IMAGE = "example.org/team/thing@sha256:" + "1" * 64

PROBES = Health.model_validate_json(
    """{"startup": {"grpc": {"port": 80, "service": "a.B"}, "failures": 9},
        "ready": {"http": {"port": 80, "path": "/r?x=$(HOME)"}, "interval": "1500ms", "successes": 2},
        "live": {"exec": {"command": ["sh", "-c", "true"]}, "timeout": "100ms", "initial": "5s"}}"""
)
NOTES = Mount("notes", "/data/notes", writable=True)
MAPS = Mount("maps", "/data/maps", writable=False)
WITH_VOLUMES = replace(
    SETTINGS,
    volumes=(
        ClaimVolume("notes", "team-notes", writable=True, group=2000),
        ClaimVolume("maps", "maps", writable=False),
    ),
)

EGRESS = DoorService(
    "crucible-system", "crucible-egress", "10.96.0.7", (("app", "egress"), ("of", "us")), 3128
)
BUS = DoorService("crucible-system", "crucible-bus", "10.96.0.8", (("app", "bus"),), 3129)
WITH_BUS = replace(SETTINGS, bus=BUS)
WITH_EGRESS = replace(SETTINGS, egress=EGRESS, network_policies=True)

TCP = Health.model_validate_json('{"ready": {"process": {}}, "live": {"tcp": {"port": 9090}}}')
CASES: dict[str, Any] = {
    "python": (workload(), FILES, SETTINGS),
    "javascript": (workload(type="javascript", entrypoint=("main.js",)), {"main.js": "1"}, SETTINGS),
    "wasm": (
        workload(type="wasm", entrypoint=("main.wasm",), fuel=1000, time=2.0),
        {"main.wasm": "(module)"},
        SETTINGS,
    ),
    "rune": (workload(type="rune", entrypoint=("main.rn",)), {"main.rn": "1"}, SETTINGS),
    "binary": (workload(type="binary", entrypoint=("run",)), {"run": "#!x"}, SETTINGS),
    "service": (
        workload(type="service", image=IMAGE, entrypoint=(), listen=(8080, 9090), probes=TCP.probes),
        {},
        SETTINGS,
    ),
    "secrets": (
        workload(
            secrets=(("api", ""), ("db", "")),
            secret_env=(SecretVariable("TOKEN", "api", "token"),),
            env=(("TOKEN", "hidden"), ("MODE", "fast")),
        ),
        FILES,
        SETTINGS,
    ),
    "volumes": (workload(mounts=(NOTES, MAPS)), FILES, WITH_VOLUMES),
    "egress": (workload(doors=(Door.EGRESS,)), FILES, WITH_EGRESS),
    "bus": (workload(doors=(Door.BUS,)), FILES, WITH_BUS),
    "both-doors": (workload(doors=tuple(Door)), FILES, replace(WITH_EGRESS, bus=BUS)),
    "command": (
        workload(type="service", image=IMAGE, entrypoint=("serve", "--at=$(HOME)"), listen=(8080,)),
        {},
        SETTINGS,
    ),
    "user-namespaces": (workload(), FILES, KubernetesSettings(user_namespaces=True)),
    "everything-set": (
        workload(
            isolation="vm",
            env=(("TEXT", "$(HOME) and $HOME"), ("HOME", "/elsewhere")),
            probes=PROBES.probes,
            pre_stop=PreStop.model_validate_json('{"command": ["flush", "$(ALL)"], "timeout": "3s"}'),
        ),
        FILES,
        KubernetesSettings(
            images="example.org/crucible",
            tag="1.0.0",
            pull_policy="Always",
            pull_secret="registry",
            seccomp="profiles/{type}.json",
            user_namespaces=True,
            vm_runtime_class="kata",
            priority_class="plugins",
        ),
    ),
}


def objects_of(name: str) -> list[dict[str, Any]]:
    """Return all that one instance of a case is run as."""
    asked, files, settings = CASES[name]
    config = config_map(asked, files)
    around = surroundings(
        marks.owner_of_workload(asked), asked.listen, several=True, ways=settings.ways_of(asked).values()
    )
    return [config, *around, pod(asked, FIRST, settings, config["metadata"]["name"], files)]


@pytest.mark.parametrize("name", sorted(CASES))
def test_each_kind_of_plugin_compiles_to_what_is_on_record(name: str) -> None:
    path = GOLDEN / f"{name}.json"
    text = json.dumps(objects_of(name), indent=2) + "\n"
    if os.environ.get("CRUCIBLE_GOLDEN") == "write":
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", sorted(CASES))
def test_every_object_is_one_that_kubernetes_knows(name: str, version: str) -> None:
    for each in objects_of(name):
        kubernetes_validate.validate(each, version, strict=True)


SAFE_TEXT = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
NAMES = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
WORKLOADS = st.builds(
    workload,
    type=st.sampled_from(["python", "javascript", "wasm", "rune", "binary", "service"]),
    entrypoint=st.lists(SAFE_TEXT.filter(bool), min_size=1, max_size=4).map(tuple),
    env=st.lists(st.tuples(st.from_regex(r"[A-Z_]{1,12}", fullmatch=True), SAFE_TEXT), max_size=4).map(tuple),
    isolation=st.sampled_from(["process", "container", "language", "vm"]),
    image=st.sampled_from(["", IMAGE]),
    listen=st.lists(st.integers(1, 65535), max_size=3, unique=True).map(tuple),
    limits=st.builds(
        Limits,
        cpu=st.integers(1, 64_000),
        memory=st.integers(1 << 20, 1 << 40),
        pids=st.integers(1, 4096),
        disk=st.integers(0, 1 << 40),
        open_files=st.integers(16, 65536),
    ),
    grace=st.floats(0, 3600),
    secrets=st.lists(st.tuples(NAMES, st.just("")), max_size=3, unique=True).map(tuple),
    mounts=st.sampled_from([(), (NOTES,), (replace(NOTES, writable=False),)]),
    secret_env=st.lists(st.builds(SecretVariable, NAMES, NAMES, NAMES), max_size=3).map(tuple),
)
CHOICES = st.builds(
    KubernetesSettings,
    volumes=st.just(WITH_VOLUMES.volumes),
    seccomp=st.sampled_from(["", "p.json"]),
    user_namespaces=st.booleans(),
    vm_runtime_class=st.sampled_from(["", "kata"]),
)


@given(asked=WORKLOADS, settings=CHOICES, ordinal=st.integers(0, 99))
def test_no_pod_is_ever_more_than_restricted(asked: Any, settings: KubernetesSettings, ordinal: int) -> None:
    files = {} if asked.image else {asked.entrypoint[0]: ""}
    spec = pod(asked, Slot(ordinal, 7), settings, "config", files)["spec"]
    (container,) = spec["containers"]
    assert (
        not {"initContainers", "ephemeralContainers", "nodeName", "nodeSelector", "hostAliases"} & spec.keys()
    )
    assert not {"serviceAccountName", "serviceAccount", "tolerations", "schedulerName"} & spec.keys()
    assert spec["automountServiceAccountToken"] is False
    assert not any(spec[name] for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"))
    assert spec["restartPolicy"] == "Never"
    assert spec.get("hostUsers", False) is False
    for volume in spec["volumes"]:
        assert len(volume.keys() & {"configMap", "emptyDir", "secret", "persistentVolumeClaim"}) == 1
        assert len(volume) == 2
        assert volume.get("secret", {}).keys() <= {"secretName", "defaultMode"}
        assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""})
    security = {**spec["securityContext"], **container["securityContext"]}
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] >= 10_000
    assert security["runAsUser"] < (65_536 if settings.user_namespaces else 2**31)
    assert security["privileged"] is False
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"]["type"] in {"RuntimeDefault", "Localhost"}
    resources = container["resources"]
    assert resources["limits"] == resources["requests"]
    assert resources["limits"].keys() == {"cpu", "memory", "ephemeral-storage"}
    assert not any("hostPort" in port for port in container["ports"])
    assert not {"lifecycle", "livenessProbe", "readinessProbe", "envFrom"} & container.keys()
    for each in container["env"]:
        assert each.keys() in ({"name", "value"}, {"name", "valueFrom"})
        assert each.get("valueFrom", {"secretKeyRef": ""}).keys() == {"secretKeyRef"}
    assert {each["secret"]["secretName"] for each in spec["volumes"] if "secret" in each} == {
        name for name, _ in asked.secrets
    }
    for mount in container["volumeMounts"]:
        granted = {each.place for each in asked.mounts if each.writable}
        assert mount.get("readOnly") or mount["mountPath"] in {"/tmp", "/dev/shm", *granted}


@pytest.mark.parametrize("mount", [Mount("other", "/data/x", writable=False), replace(MAPS, writable=True)])
def test_a_volume_that_is_not_offered_compiles_to_nothing(mount: Mount) -> None:
    with pytest.raises(InvalidInput, match="is not offered any more, or not for writing"):
        pod(workload(mounts=(mount,)), FIRST, WITH_VOLUMES, "c", FILES)


def kubelet_expands(text: str) -> str:
    """Expand ``$(NAME)`` as the kubelet does, with every name unknown: ``$$`` is a plain ``$`` then."""
    return re.sub(r"\$\$|\$\([^)]*\)", lambda found: "$" if found[0] == "$$" else "EXPANDED", text)


@given(text=st.text(alphabet="$()AB{} ", max_size=12))
def test_the_kubelet_hands_over_every_text_as_it_is(text: str) -> None:
    asked = workload(entrypoint=("main.py", text), env=(("TEXT", text),))
    (container,) = pod(asked, FIRST, SETTINGS, "config", FILES)["spec"]["containers"]
    assert kubelet_expands(container["args"][-1]) == text
    assert kubelet_expands(container["env"][-1]["value"]) == text


def test_a_config_map_is_named_by_what_is_in_it() -> None:
    plain = config_map(workload(), FILES)
    assert plain == config_map(workload(restart="now", env=()), dict(reversed(FILES.items())))
    names = {
        each["metadata"]["name"]
        for each in (
            plain,
            config_map(workload(config="{}"), FILES),
            config_map(workload(), {**FILES, "main.py": ""}),
            config_map(workload(), {"main.py": FILES["main.py"], "lib/other.py": FILES["lib/words.py"]}),
        )
    }
    assert len(names) == 4
    assert plain["immutable"] is True


def test_names_that_are_derived_fit_their_kinds_for_the_longest_plugin() -> None:
    owner = marks.Owner("ns", "9" * 50, UID)
    assert len(marks.pod_name(owner, Slot(999, 99_999))) <= 63
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,62}", marks.service_name(owner))
    assert all(len(value) <= 63 for value in marks.pod_labels(owner, 3, "0" * 16, tuple(Door)).values())


def test_a_pod_is_known_by_its_owner_and_its_name_and_by_nothing_else() -> None:
    made = pod(workload(), Slot(2, 31), SETTINGS, "config", FILES)
    made["metadata"].pop("labels")
    assert marks.slot_of(made) == Slot(2, 31)
    for name in ("word-count-2", "other-2-31", "word-count-a-31", "word-count-2-31-"):
        assert marks.slot_of({"metadata": {**made["metadata"], "name": name}}) is None
    assert marks.slot_of({"metadata": {**made["metadata"], "ownerReferences": []}}) is None


def test_a_manifest_as_people_write_it_compiles() -> None:
    plugin = {
        "apiVersion": "crucible.dev/v1alpha1",
        "kind": "Plugin",
        "metadata": {"name": "word-count", "namespace": "team-a", "uid": UID, "generation": 1},
        "spec": {
            "version": "1.0.0",
            "type": "python",
            "source": {"inline": {"main.py": "print('hello')\n"}},
            "entrypoint": ["main.py"],
        },
    }
    asked = render(
        read_identity(plugin), admit(plugin), SourceReport(digest="sha256:0", resolved_for="inline 1")
    )
    kubernetes_validate.validate(pod(asked, FIRST, SETTINGS, "c", {"main.py": ""}), VERSIONS[-1], strict=True)


def test_the_images_of_all_types_bring_the_words_before_a_program() -> None:
    from imagelib import recipes  # noqa: PLC0415 - scripts are not on the path before

    for kind in ("python", "javascript", "wasm", "rune", "binary"):
        before = ("/usr/bin/interpreter", "-flag") if kind != "binary" else ()
        image = recipes.image(kind, recipes.Made(before=before))
        assert tuple(json.loads(dict(image.labels)["dev.crucible.entrypoint"])) == tuple(image.entrypoint)
        (container,) = pod(workload(type=kind), FIRST, SETTINGS, "c", FILES)["spec"]["containers"]
        assert "command" not in container
        assert container["args"][-2:] == ["/plugin/main.py", "--fast"]


POLICY, SERVICE, BUDGET = surroundings(OWNER, (8080,), several=True)
OUT = surroundings(OWNER, (), several=False, ways=[EGRESS])[0]
CHANGES: dict[str, Any] = {
    "way out widened": (OUT, lambda spec: spec["egress"][0]["ports"].append({"port": 443})),
    "way out elsewhere": (OUT, lambda spec: spec["egress"][0]["to"][0].pop("podSelector")),
    "way out closed": (OUT, lambda spec: spec.update(egress=[])),
    "egress opened": (POLICY, lambda spec: spec.update(egress=[{}])),
    "ingress widened": (POLICY, lambda spec: spec["ingress"].append({})),
    "another port": (POLICY, lambda spec: spec["ingress"][0]["ports"].append({"port": 22})),
    "selector narrowed": (POLICY, lambda spec: spec["podSelector"]["matchLabels"].update(x="y")),
    "selector emptied": (POLICY, lambda spec: spec.update(podSelector={})),
    "egress let out": (POLICY, lambda spec: spec.update(policyTypes=["Ingress"])),
    "service opened": (SERVICE, lambda spec: spec.update(type="LoadBalancer")),
    "service moved": (SERVICE, lambda spec: spec.update(selector={"app": "other"})),
    "budget loosened": (BUDGET, lambda spec: spec.update(maxUnavailable=9)),
}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_whatever_somebody_changes_of_what_is_ours_is_put_back(name: str) -> None:
    wanted, change = CHANGES[name]
    live = json.loads(json.dumps(wanted))
    assert repair(live, wanted) == []
    change(live["spec"])
    for operation in repair(live, wanted):
        *steps, last = operation["path"].strip("/").split("/")
        place = live
        for step in steps:
            place = place[step]
        place[last] = operation["value"]
    assert live == wanted


def test_a_pod_has_a_way_out_only_where_its_manifest_asks_and_the_cluster_has_one() -> None:
    for asked, settings in (
        (workload(), WITH_EGRESS),
        (workload(doors=(Door.BUS,)), WITH_EGRESS),
        (workload(doors=(Door.EGRESS,)), SETTINGS),
    ):
        made = pod(asked, FIRST, settings, "c", FILES)
        assert not marks.doors_of(made)
        assert marks.DOOR_LABELS[Door.EGRESS] not in made["metadata"]["labels"]
        assert not any("PROXY" in each["name"].upper() for each in made["spec"]["containers"][0]["env"])
    made = pod(workload(doors=(Door.EGRESS,), env=(("HTTP_PROXY", "mine"),)), FIRST, WITH_EGRESS, "c", FILES)
    variables = {each["name"]: each["value"] for each in made["spec"]["containers"][0]["env"]}
    assert marks.doors_of(made) == {Door.EGRESS}
    assert variables["HTTP_PROXY"] == "mine"
    assert variables["http_proxy"] == "http://egress:3128"


def test_what_servers_fill_in_is_no_change() -> None:
    live = json.loads(json.dumps(SERVICE))
    live["spec"] |= {"clusterIP": "10.0.0.1", "sessionAffinity": "None", "ipFamilies": ["IPv4"]}
    live["metadata"]["labels"]["theirs"] = "stays"
    assert repair(live, SERVICE) == []
    bare = json.loads(json.dumps(surroundings(OWNER, (), several=False)[0]))
    wanted = json.loads(json.dumps(bare))
    del bare["spec"]["egress"], bare["spec"]["ingress"]
    assert repair(bare, wanted) == []


def test_labels_and_owners_that_are_taken_away_are_put_back() -> None:
    live = json.loads(json.dumps(POLICY))
    live["metadata"]["labels"] = {"theirs": "stays"}
    live["metadata"]["ownerReferences"] = []
    values = {each["path"]: each["value"] for each in repair(live, POLICY)}
    assert values["/metadata/labels"] == {"theirs": "stays", **POLICY["metadata"]["labels"]}
    assert values["/metadata/ownerReferences"] == POLICY["metadata"]["ownerReferences"]
