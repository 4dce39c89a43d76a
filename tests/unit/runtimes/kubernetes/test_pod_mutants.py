"""Takes each field away from what is written for a pod, one by one: the golden files have to notice."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crucible.runtimes.kubernetes import compile as compiler
from crucible.runtimes.kubernetes import surroundings, volumes

sys.path.insert(0, str(Path(__file__).parent))

import test_compile as golden

if TYPE_CHECKING:
    from types import ModuleType

CONTROLS = {
    *("runAsNonRoot", "privileged", "allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"),
    *("drop", "automountServiceAccountToken", "enableServiceLinks", "hostNetwork", "hostPID", "hostIPC"),
    *("shareProcessNamespace", "securityContext", "runAsUser", "runAsGroup", "seccompProfile", "limits"),
    *("requests", "cpu", "memory", "ephemeral-storage", "resources", "readOnly", "sizeLimit", "policyTypes"),
}
"""What must be among the fields that are taken away: those that hold a plugin."""


def fields_of(module: ModuleType) -> list[tuple[str, int, int]]:
    """Return each field that a module writes: its name, and where; not those of repairs to what is there."""
    tree = ast.parse(Path(str(module.__file__)).read_text())
    repairs = {
        node
        for function in tree.body
        if isinstance(function, ast.FunctionDef) and function.name == "repair"
        for node in ast.walk(function)
    }
    return [
        (str(key.value), at, number)
        for at, written in enumerate(dicts_of(tree))
        if written not in repairs
        for number, key in enumerate(written.keys)
        if isinstance(key, ast.Constant)
    ]


def dicts_of(tree: ast.Module) -> list[ast.Dict]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Dict)]


def without(module: ModuleType, at: int, number: int) -> dict[str, Any]:
    """Return the names of a module as it would be without one field."""
    path = Path(str(module.__file__))
    tree = ast.parse(path.read_text())
    written = dicts_of(tree)[at]
    del written.keys[number], written.values[number]
    changed: dict[str, Any] = {"__name__": module.__name__}
    exec(compile(tree, str(path), "exec"), changed)  # noqa: S102 - our own source, less a line
    return changed


def notices() -> bool:
    """Whether some golden file differs from what is written now."""
    for name in golden.CASES:
        kept = json.loads((golden.GOLDEN / f"{name}.json").read_text())
        try:
            if json.loads(json.dumps(golden.objects_of(name))) != kept:
                return True
        except KeyError:
            return True
    return False


def test_nothing_is_noticed_where_nothing_is_missing() -> None:
    assert not notices()


@pytest.mark.parametrize("module", [compiler, volumes, surroundings], ids=lambda module: module.__name__)
def test_each_field_that_is_missing_is_noticed(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    survived = []
    for field, at, number in fields_of(module):
        changed = without(module, at, number)
        with monkeypatch.context() as patch:
            for user in (golden, compiler):
                for name, value in vars(module).items():
                    if callable(value) and getattr(user, name, None) is value and name in changed:
                        patch.setattr(user, name, changed[name])
            if not notices():
                survived.append(field)
    assert survived == []


def test_the_fields_that_hold_a_plugin_are_among_them() -> None:
    fields = {field for module in (compiler, volumes, surroundings) for field, *_ in fields_of(module)}
    assert fields >= CONTROLS
