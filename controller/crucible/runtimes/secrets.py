"""Reads what is in the Secrets of an instance that is about to start. Nothing of it is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from crucible.core.secrets import files_of, value_of
from crucible.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from crucible.model.secret import SecretVariable
    from crucible.model.workload import Workload

    SecretsOf = Callable[[str, str], Mapping[str, bytes]]
    """Returns what is in a Secret by namespace and name, by key; raises ``NotFound``."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a plugin gets of its Secrets; printed, it tells nothing.

    Attributes:
        files: by path below ``/secrets``.
        variables: names and values.
    """

    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    variables: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def no_secrets(namespace: str, name: str) -> NoReturn:
    """Say that there is none, where nobody offers any."""
    raise NotFound(f"there is no Secret {name} in {namespace}: this controller offers none")


def open_secrets(workload: Workload, secrets_of: SecretsOf) -> Opened:
    """Read the Secrets of a workload.

    Raises:
        NotFound: one is gone, or a key of it.
        ValueError: what is in them cannot be shown to a plugin; says why.
    """
    secrets = {name: secrets_of(workload.namespace, name) for name, _ in workload.secrets}
    return Opened(files_of(secrets), variables_of(workload.secret_env, secrets))


def variables_of(
    wanted: Iterable[SecretVariable], secrets: Mapping[str, Mapping[str, bytes]]
) -> tuple[tuple[str, str], ...]:
    """Return variables with their values.

    Raises:
        NotFound: a key is gone.
        ValueError: a value is none that a variable can hold.
    """
    found = []
    for variable in wanted:
        place = f"key {variable.key} of Secret {variable.secret}"
        content = secrets.get(variable.secret, {}).get(variable.key)
        if content is None:
            raise NotFound(f"{place} is gone: put it back")
        found.append((variable.name, value_of(content, place)))
    return tuple(found)
