"""From what a manifest asks for to what holds it: every demand is answered, and refused, in one way. Pure.

A manifest makes two kinds of demand. It *picks* among what a runtime offers: a kind of source, a type, an
isolation, a volume. And it *needs* controls: the fixed ones, which hold every plugin, and one for each
capability it asks for. A capability that is new needs a :class:`~crucible.model.enforcement.Control`, a row
in ``_GRANTS`` here, and a word about that control from each runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from crucible.core.bus import is_on_bus, uses_of
from crucible.core.expression import figures
from crucible.model.enforcement import Control, Level
from crucible.model.volume import access

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from crucible.model.enforcement import Capabilities, Enforcement
    from crucible.model.manifest import PluginSpec
    from crucible.model.probe import Probe


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a Plugin may not run: one CamelCase word, and what to change."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class _Pick:
    """What a manifest chooses, and from what.

    Attributes:
        reason: the word for a choice that is not offered.
        wanted: the fields of a manifest that choose, each with its choice.
        offered: what a runtime has to choose from.
        advice: what a person can do who wants it all the same.
    """

    reason: str
    wanted: Callable[[PluginSpec], Iterable[tuple[str, str]]]
    offered: Callable[[Capabilities], Collection[str]]
    advice: str = "see 'crucible doctor'"


@dataclass(frozen=True, slots=True)
class _Grant:
    """A capability, and the control that holds a plugin to what was granted of it.

    Attributes:
        control: which.
        reason: the word for a capability that nothing gives here.
        field: where a manifest asks for it.
        asked: whether one does.
    """

    control: Control
    reason: str
    field: str
    asked: Callable[[PluginSpec], bool]


_PICKS: Final = (
    _Pick(
        "SourceUnsupported",
        lambda spec: [(f"spec.source.{spec.source.kind}", spec.source.kind)],
        lambda here: here.sources,
        "start the controller with a runtime that takes it",
    ),
    _Pick(
        "VolumeUnavailable",
        lambda spec: [
            (f"spec.capabilities.files[{index}]", access(each.volume, writable=each.access == "write"))
            for index, each in enumerate(spec.capabilities.files)
        ],
        lambda here: here.volumes,
        "whoever runs the controller names volumes: 'crucible up --volume NAME=DIR'",
    ),
    _Pick("TypeUnavailable", lambda spec: [("spec.type", spec.type.value)], lambda here: here.types),
    _Pick(
        "IsolationUnavailable",
        lambda spec: [("spec.sandbox.isolation", spec.sandbox.isolation.value)],
        lambda here: here.isolation,
    ),
    _Pick(
        "ProbeUnavailable",
        lambda spec: [(f"spec.health.{name}", probe.kind) for name, probe in spec.health.probes],
        lambda here: here.probes,
        "see docs/health.md",
    ),
    _Pick(
        "ProbeUnavailable",
        lambda spec: [
            (f"spec.health.{name}.{probe.kind}", figure)
            for name, probe in spec.health.probes
            for figure in judged(probe)
        ],
        lambda here: here.usage,
        "see docs/health.md",
    ),
    _Pick("BusUnavailable", uses_of, lambda here: here.bus, "leave it out"),
    _Pick(
        "ConfigDeliveryUnavailable",
        lambda spec: [("spec.configDelivery", spec.config_delivery.value)],
        lambda here: here.deliveries,
        "write restart",
    ),
)
_GRANTS: Final = (
    _Grant(
        Control.LISTEN,
        "ListenUnavailable",
        "spec.capabilities.network.listen",
        lambda spec: bool(spec.capabilities.network.listen),
    ),
    _Grant(Control.BUS, "BusUnavailable", "spec.capabilities.bus", is_on_bus),
    _Grant(
        Control.STORE,
        "StoreUnavailable",
        "spec.capabilities.store",
        lambda spec: spec.capabilities.store is not None,
    ),
    _Grant(
        Control.FILES,
        "FilesUnavailable",
        "spec.capabilities.files",
        lambda spec: bool(spec.capabilities.files),
    ),
    _Grant(
        Control.EGRESS,
        "EgressUnavailable",
        "spec.capabilities.network.connect",
        lambda spec: bool(spec.capabilities.network.connect),
    ),
    _Grant(
        Control.SECRETS,
        "SecretsUnavailable",
        "spec.capabilities.secrets",
        lambda spec: bool(spec.capabilities.secrets),
    ),
    _Grant(
        Control.SECRET_ENV,
        "SecretEnvironmentUnavailable",
        "spec.env",
        lambda spec: any(variable.secret is not None for variable in spec.env),
    ),
)
_GRANTED: Final = frozenset(grant.control for grant in _GRANTS)


def enforcement_of(spec: PluginSpec | None, here: Capabilities) -> tuple[Enforcement, ...]:
    """Return how the controls hold that matter: the fixed ones, and those of what the manifest asks for.

    Args:
        spec: None for a manifest that cannot be read, of which only the fixed ones are known to matter.
        here: what the runtime holds plugins to.
    """
    if spec is not None and spec.source.url is not None:
        return ()  # it runs nowhere here
    asked = {grant.control for grant in _GRANTS if spec is not None and grant.asked(spec)}
    return tuple(entry for entry in here.controls if entry.control not in _GRANTED or entry.control in asked)


def refusal_of(spec: PluginSpec, here: Capabilities) -> Refusal | None:
    """Return why a valid manifest may not run on this runtime, or None when it may."""
    if spec.source.url is not None:
        return None
    return _unoffered(spec, here) or _ungranted(spec, here) or _unheld(spec, here)


def accepted_gaps(spec: PluginSpec, here: Capabilities) -> tuple[Enforcement, ...]:
    """Return the controls that do not hold and that the manifest does without."""
    return tuple(
        entry
        for entry in enforcement_of(spec, here)
        if entry.level is not Level.ENFORCED and entry.control in spec.sandbox.allow_degraded
    )


def weaknesses(gaps: Sequence[Enforcement]) -> str:
    """Say which controls do not hold and why; those that share a reason together."""
    reasons: dict[str, list[str]] = {}
    for gap in gaps:
        reasons.setdefault(f"{gap.level.value}: {gap.by}", []).append(gap.control.value)
    return "; ".join(
        f"{', '.join(controls)} {'is' if len(controls) == 1 else 'are'} {reason}"
        for reason, controls in reasons.items()
    )


def judged(probe: Probe) -> tuple[str, ...]:
    """Return the figures of use that a probe judges by."""
    if probe.resource is not None:
        given = {"memory": probe.resource.memory, "cpu": probe.resource.cpu, "pids": probe.resource.pids}
        return tuple(name for name, most in given.items() if most is not None)
    return figures(probe.custom.expression) if probe.custom is not None else ()


def _unoffered(spec: PluginSpec, here: Capabilities) -> Refusal | None:
    for pick in _PICKS:
        offered = pick.offered(here)
        for field, choice in pick.wanted(spec):
            if choice not in offered:
                advice = dict(here.lacks).get(choice, pick.advice)
                return Refusal(
                    pick.reason,
                    f"{field}: the {here.runtime} runtime of this host does not offer {choice}; "
                    f"it offers {', '.join(sorted(offered)) or 'nothing'} ({advice})",
                )
    return None


def _ungranted(spec: PluginSpec, here: Capabilities) -> Refusal | None:
    """Refuse a capability that nothing gives here: nobody can do without what they asked for."""
    levels = {entry.control: entry for entry in here.controls}
    for grant in _GRANTS:
        entry = levels[grant.control]
        if entry.level is Level.UNAVAILABLE and grant.asked(spec):
            return Refusal(
                grant.reason,
                f"{grant.field}: is not to be had on the {here.runtime} runtime of this host: {entry.by}",
            )
    return None


def _unheld(spec: PluginSpec, here: Capabilities) -> Refusal | None:
    gaps = [
        entry
        for entry in enforcement_of(spec, here)
        if entry.level is not Level.ENFORCED and entry.control not in spec.sandbox.allow_degraded
    ]
    if not gaps:
        return None
    names = ", ".join(gap.control.value for gap in gaps)
    fix = f"Mend the host, or accept it with spec.sandbox.allowDegraded: [{names}]"
    return Refusal("NotEnforceable", f"{weaknesses(gaps)}. {fix}")
