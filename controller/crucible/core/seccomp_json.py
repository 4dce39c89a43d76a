"""The system call profile as container runtimes take it: JSON, for Docker and for a node's kubelet. Pure.

Their form knows no order: every rule of one call that matches counts, and there is no "else". So each
conditional call is cut into cubes, sets of argument values that fix some bits and leave the others open: a
case keeps what no earlier case took, and what no case took gets the ``otherwise``. The cubes never overlap,
and their meaning is exactly that of :meth:`crucible.core.seccomp.Profile.action`. One with the default's
answer is left out: every start of a container compiles them all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from crucible.core.bpf import AUDIT_ARCH
from crucible.core.seccomp import ALLOW, KILL, Action
from crucible.core.syscalls import numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crucible.core.seccomp import Case, Conditional, Profile

Cube = Mapping[int, tuple[int, int]]
"""Mask and value by argument; an argument it does not name may be anything."""

_ERRNO: Final = 0x00050000
_BITS: Final = tuple(1 << bit for bit in range(31, -1, -1))


@cache
def document(profile: Profile, machines: tuple[str, ...] = tuple(AUDIT_ARCH)) -> str:
    """Return a profile as JSON text for Docker's ``SecurityOpt: seccomp=…``, or a kubelet's profile folder.

    Calls that the profile does not name are named here with its default: older engines have one of their own.
    A filter is compiled for each of ``machines``: name the one that is meant, where it is known.
    """
    judged = {rule.name for rule in profile.conditional}
    plain: dict[Action, list[str]] = {}
    known = {name for machine in AUDIT_ARCH for name in numbers(machine)}
    for name in sorted(known - judged):
        plain.setdefault(profile.action(name), []).append(name)
    groups = [_group(names, action) for action, names in plain.items()]
    for rule in profile.conditional:
        answers = [(cube, action) for cube, action in cubes(rule) if not cube or action != profile.default]
        groups += [_group([rule.name], action, cube) for cube, action in answers]
    text = {
        **_action("default", profile.default),
        "architectures": [f"SCMP_ARCH_{machine.upper()}" for machine in machines],
        "syscalls": groups,
    }
    return json.dumps(text, separators=(",", ":"))


def cubes(rule: Conditional) -> Iterator[tuple[Cube, Action]]:
    """Cut all arguments of a call into sets that do not overlap, each with its answer."""
    left: list[Cube] = [{}]
    for case in rule.cases:
        taken = _cube(case)
        for cube in left:
            both = _meet(cube, taken)
            if both is not None:
                yield both, case.action
        left = [rest for cube in left for rest in _without(cube, taken)]
    for cube in left:
        yield cube, rule.otherwise


def _cube(case: Case) -> Cube:
    """Return the values for which every check of a case holds; it checks an argument once."""
    return {check.argument: (check.mask, check.value) for check in case.checks}


def _meet(one: Cube, other: Cube) -> Cube | None:
    """Return what two cubes have in common; None for nothing."""
    found = dict(one)
    for argument, (mask, value) in other.items():
        fixed, known = found.get(argument, (0, 0))
        if (known ^ value) & fixed & mask:
            return None
        found[argument] = (fixed | mask, known | value)
    return found


def _without(cube: Cube, taken: Cube) -> Iterator[Cube]:
    """Yield what is left of a cube: one for each bit that ``taken`` fixes and it does not, turned over."""
    if _meet(cube, taken) is None:
        yield cube
        return
    kept = dict(cube)
    for argument, (mask, value) in sorted(taken.items()):
        for bit in _BITS:
            fixed, known = kept.get(argument, (0, 0))
            if mask & bit and not fixed & bit:
                yield {**kept, argument: (fixed | bit, known | (~value & bit))}
                kept[argument] = (fixed | bit, known | (value & bit))


def _group(names: list[str], action: Action, cube: Cube | None = None) -> dict[str, Any]:
    arguments = [
        # Masked, so that the upper half of a register, which an int does not have, is not looked at.
        {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
        for index, (mask, value) in sorted((cube or {}).items())
    ]
    return {"names": names, **_action("", action), **({"args": arguments} if arguments else {})}


def _action(prefix: str, action: Action) -> dict[str, Any]:
    name = f"{prefix}Action" if prefix else "action"
    errno = f"{prefix}ErrnoRet" if prefix else "errnoRet"
    if action == ALLOW:
        return {name: "SCMP_ACT_ALLOW"}
    if action == KILL:
        return {name: "SCMP_ACT_KILL_PROCESS"}
    return {name: "SCMP_ACT_ERRNO", errno: action & ~_ERRNO}
