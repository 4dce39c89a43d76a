"""The chart on a real API server: a release's life, what stays after it, who may do what.

Needs no node and no controller: nothing here waits for a pod.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import yaml
from release import CHART, NAMESPACE, REPOSITORY, SECONDS, Object, Ran
from test_rights import MADE, OPERATOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

TOOLS = REPOSITORY / ".tools/bin"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:crucible"
VERBS = MADE | {"update", "deletecollection"}
PLUGIN: Object = {
    "apiVersion": "crucible.dev/v1alpha1",
    "kind": "Plugin",
    "metadata": {"name": "a", "namespace": "one"},
    "spec": {
        "version": "1.0.0",
        "type": "python",
        "source": {"inline": {"main.py": "print(1)"}},
        "entrypoint": ["main.py"],
    },
}
POD: Object = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "one", "labels": {"crucible.dev/plugin": "a"}},
    "spec": {"containers": [{"name": "a", "image": "a"}]},
}


def run(program: str, *argv: str, stdin: str = "") -> Ran:
    done = subprocess.run(
        [TOOLS / program, *argv],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env={**os.environ, "KUBECONFIG": os.environ["CRUCIBLE_TEST_KUBECONFIG"]},
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def ok(program: str, *argv: str, stdin: str = "") -> str:
    ran = run(program, *argv, stdin=stdin)
    assert ran.code == 0, f"{' '.join(argv)}: {ran.err}"
    return ran.out


def upgrade(*options: str, chart: Path = CHART) -> str:
    return ok(
        *("helm", "upgrade", "--install", "crucible", str(chart), "--namespace", NAMESPACE),
        *("--create-namespace", "--wait=hookOnly", *options),
    )


def apply(manifest: Object, *options: str) -> Ran:
    return run("kubectl", "apply", "--server-side", "-f", "-", *options, stdin=json.dumps(manifest))


def may(verb: str, group: str, resource: str, namespace: str = "") -> bool:
    return bool(granted([verb], group, resource, namespace))


def granted(verbs: Iterable[str], group: str, resource: str, namespace: str = "") -> set[str]:
    """Ask the server itself: `kubectl auth can-i` asks something else of what the cluster does not serve."""
    kind, _, part = resource.partition("/")
    asked = {"group": group, "resource": kind, "subresource": part, "namespace": namespace}
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"]
    reviews = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": ACCOUNT, "groups": groups, "resourceAttributes": {"verb": verb, **asked}},
        }
        for verb in verbs
    ]
    every = {"apiVersion": "v1", "kind": "List", "items": reviews}
    answer = json.loads(ok("kubectl", "create", "-f", "-", "-o", "json", stdin=json.dumps(every)))
    return {
        each["spec"]["resourceAttributes"]["verb"]
        for each in answer.get("items", [answer])
        if each["status"]["allowed"]
    }


@pytest.fixture(autouse=True)
def cluster() -> Iterator[None]:
    for name in ("one", "two"):
        run("kubectl", "create", "namespace", name)
    yield
    run("helm", "uninstall", "crucible", "--namespace", NAMESPACE)
    run("kubectl", "delete", "plugins", "--all", "--all-namespaces", "--wait=false")
    # A definition on its way out would be in the next test's way; no operator is there to let plugins go.
    for name in ("one", "two"):
        run(
            "kubectl",
            "patch",
            "plugin",
            "a",
            "-n",
            name,
            "--type=merge",
            "-p",
            '{"metadata":{"finalizers":null}}',
        )
    run("kubectl", "delete", "crd", "plugins.crucible.dev", "--timeout=60s")
    run("kubectl", "delete", "pods,configmaps", "-l", "crucible.dev/plugin", "-n", "one", "--force")


def test_a_release_lives_its_whole_life_and_keeps_what_people_made(tmp_path: Path) -> None:
    older = tmp_path / "crucible"
    shutil.copytree(CHART, older)
    definition = older / "files/crds/plugins.crucible.dev.yaml"
    definition.write_text(definition.read_text().replace("A plugin: what it is", "Older: what it is"))
    assert "STATUS: deployed" in upgrade(chart=older)
    ok("kubectl", "wait", "--for=condition=Established", "crd/plugins.crucible.dev", "--timeout=30s")
    assert apply(PLUGIN).code == 0
    assert "Older: what it is" in ok("kubectl", "get", "crd", "plugins.crucible.dev", "-o", "json")
    upgrade("--set", "replicas=2")
    assert "Older: what it is" not in ok("kubectl", "get", "crd", "plugins.crucible.dev", "-o", "json")
    ok("kubectl", "get", "pdb", "crucible", "-n", NAMESPACE)
    ok("helm", "rollback", "crucible", "1", "--namespace", NAMESPACE)
    deployment = json.loads(ok("kubectl", "get", "deploy", "crucible", "-n", NAMESPACE, "-o", "json"))
    assert deployment["spec"]["replicas"] == 1
    assert run("kubectl", "get", "pdb", "crucible", NAMESPACE).code != 0
    assert "plugins.crucible.dev" in ok("helm", "uninstall", "crucible", "--namespace", NAMESPACE)
    ok("kubectl", "get", "plugin", "a", "-n", "one")
    for kind in ("clusterroles", "clusterrolebindings", "validatingadmissionpolicies"):
        found = ok("kubectl", "get", kind, "-l", "app.kubernetes.io/part-of=crucible", "-o", "name")
        assert found == ""
    upgrade()
    ok("kubectl", "get", "plugin", "a", "-n", "one")


def test_the_server_agrees_about_every_right() -> None:
    upgrade()
    _until(lambda: may("create", "", "pods", "one"))  # a server learns of new rights a moment later
    for (group, resource), verbs in OPERATOR.items():
        assert granted(VERBS, group, resource, "one") == verbs, f"{resource}.{group}"
    assert not may("get", "", "secrets", "one")
    assert not may("create", "", "pods/exec", "one")
    assert not may("get", "", "pods/log", "one")
    assert may("create", "coordination.k8s.io", "leases", NAMESPACE)
    assert not may("create", "coordination.k8s.io", "leases", "one")
    assert may("list", "", "nodes")
    assert not may("get", "", "nodes/proxy")


def test_held_to_namespaces_the_server_refuses_it_elsewhere() -> None:
    upgrade("--set", "watchNamespaces={one}")
    _until(lambda: may("create", "", "pods", "one"))
    assert may("list", "crucible.dev", "plugins", "one")
    assert not may("create", "", "pods", "two")
    assert not may("list", "crucible.dev", "plugins")
    poser = {**PLUGIN, "metadata": {"name": "a", "namespace": "two", "labels": {"crucible.dev/x": "y"}}}
    assert apply(poser).code == 0, "policies hold where the release is at work"


def test_the_server_runs_the_policies() -> None:
    upgrade("--set", "admission.allowedNamespaces={one,kube-system}")
    ok("kubectl", "create", "clusterrolebinding", "edit-all", "--clusterrole=cluster-admin", "--user=alice")
    try:
        for refused, words in (
            (
                {**PLUGIN, "metadata": {**PLUGIN["metadata"], "labels": {"crucible.dev/x": "y"}}},
                "are the operator's",
            ),
            (
                {**PLUGIN, "metadata": {**PLUGIN["metadata"], "namespace": "two"}},
                "may only be in one, kube-system",
            ),
            (
                {**PLUGIN, "metadata": {**PLUGIN["metadata"], "namespace": "kube-system"}},
                "no Plugin may be in kube-",
            ),
            ({**PLUGIN, "spec": {**PLUGIN["spec"], "source": {"path": "./a"}}}, "use inline or image"),
            (POD, "are the operator's, on pods too"),
        ):
            _eventually_refused(refused, words)
        assert apply(PLUGIN, "--as", "alice").code == 0
        made = apply(POD, "--as", ACCOUNT)
        assert made.code == 0, made.err
        ran = run("kubectl", "label", "pod", "p", "-n", "one", "crucible.dev/plugin-", "--as", "alice")
        assert "are the operator's, on pods too" in ran.err
        ok("kubectl", "label", "pod", "p", "-n", "one", "team=a", "--as", "alice")
        owner = {"apiVersion": "crucible.dev/v1alpha1", "kind": "Plugin", "name": "a", "uid": "u"}
        forged = {"name": "a-0-1", "namespace": "one", "ownerReferences": [owner]}
        _eventually_refused({**POD, "metadata": forged}, "only the operator makes pods for a Plugin")
    finally:
        ok("kubectl", "delete", "clusterrolebinding", "edit-all")


def test_the_operator_needs_no_right_that_it_does_not_have(tmp_path: Path) -> None:
    upgrade()
    config = yaml.safe_load(ok("kubectl", "config", "view", "--raw", "--minify", "--flatten"))
    token = ok("kubectl", "create", "token", "crucible", "-n", NAMESPACE).strip()
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    command = [
        *(sys.executable, "-m", "crucible", "operator", "--kubeconfig", str(tmp_path / "config")),
        *("--lease-namespace", NAMESPACE, "--health-port", "0", "--metrics-port", "0"),
        *("--network-policies", "enforced"),
    ]
    spec = {**PLUGIN["spec"], "sandbox": {"allowDegraded": ["pids", "openFiles"]}, "replicas": 2}
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stderr=log, stdout=log) as operator:
        try:
            assert apply({**PLUGIN, "spec": spec}).code == 0
            _until(lambda: ok("kubectl", "get", "pods,pdb,netpol", "-n", "one", "-o", "name").count("/") == 4)
            ok("kubectl", "delete", "plugin", "a", "-n", "one", "--wait=false")
            ok("kubectl", "delete", "pods", "--all", "-n", "one", "--force")  # no node would let them go
            _until(lambda: run("kubectl", "get", "plugin", "a", "-n", "one").code != 0)
            # Files go with their owner, by the cluster's own collector; an API server alone has none.
            assert ok("kubectl", "get", "pods,pdb,netpol", "-n", "one", "-o", "name") == ""
        finally:
            operator.terminate()
    assert "forbidden" not in (tmp_path / "log").read_text().lower()


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _eventually_refused(manifest: Object, words: str) -> None:
    """A policy takes a moment to come into force."""
    deadline = time.monotonic() + SECONDS
    while words not in (ran := apply(manifest, "--as", "alice", "--dry-run=server")).err:
        assert time.monotonic() < deadline, ran.err or "it was taken"
        time.sleep(0.2)
