"""Which machines were invited, written down beside the authority that signed for them."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

from crucible.backbone.authority import write_private
from crucible.core.backbone import MACHINE, NAMESPACE
from crucible.core.natsconfig import User
from crucible.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FILE: Final = "machines.json"
_LOCK: Final = "machines.lock"
_DOMAIN: Final = "backbone.crucible"
MANAGER: Final = "crucible-manager"
"""Who makes the streams; no machine can be called so."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One that was invited.

    Attributes:
        name: of it.
        token: in its certificate's name; a machine that is invited again after it was revoked has another.
        namespaces: in which it may speak to others, and hear them.
        until: when its certificate ends, as ``2026-01-31T12:00:00Z``.
    """

    name: str
    token: str
    namespaces: tuple[str, ...]
    until: str

    @property
    def identity(self) -> str:
        """What its certificate is made out to."""
        return f"{self.name}.{self.token}.{_DOMAIN}"

    @property
    def user(self) -> User:
        """Who it is to the server."""
        return User(self.name, self.identity, self.namespaces)


class Machines:
    """The list, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> dict[str, Machine]:
        """Return every machine, by name.

        Raises:
            InvalidInput: what lies there is no list.
        """
        path = self._folder / _FILE
        try:
            found = json.loads(path.read_text())
            return {
                name: Machine(name, str(one["token"]), tuple(map(str, one["namespaces"])), str(one["until"]))
                for name, one in found.items()
            }
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(f"{path} is no list of machines: put back a copy of it") from error

    def put(self, machine: Machine) -> None:
        """Write one down."""
        with self._held():
            self._write({**self.all(), machine.name: machine})

    def extend(self, name: str, token: str, until: str) -> None:
        """Write down that one's certificate is good for longer.

        Raises:
            InvalidInput: it was revoked meanwhile.
        """
        with self._held():
            known = self.all()
            machine = known.get(name)
            if machine is None or machine.token != token:
                raise InvalidInput(f"{name} is not invited any more")
            self._write({**known, name: replace(machine, until=until)})

    def drop(self, name: str) -> None:
        """Forget one.

        Raises:
            NotFound: it is not on the list.
        """
        with self._held():
            known = self.all()
            if name not in known:
                raise NotFound(f"no machine {name} was invited")
            del known[name]
            self._write(known)

    def _write(self, machines: dict[str, Machine]) -> None:
        words = {name: {**asdict(one), "name": name} for name, one in sorted(machines.items())}
        write_private(self._folder / _FILE, json.dumps(words, indent=1) + "\n")

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Keep others from writing meanwhile."""
        opened = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX)
            yield
        finally:
            os.close(opened)


def fresh_token() -> str:
    """Return a token that no other certificate has."""
    return secrets.token_hex(8)


def check_name(name: str) -> None:
    """Refuse what is no name of a machine.

    Raises:
        InvalidInput: says what one is.
    """
    if MACHINE.fullmatch(name) is None or name == MANAGER:
        raise InvalidInput(f"{name!r} is no name of a machine: letters a-z, digits and '-', 40 at most")


def check_namespaces(namespaces: tuple[str, ...]) -> None:
    """Refuse what are no namespaces.

    Raises:
        InvalidInput: says which is none.
    """
    if not namespaces:
        raise InvalidInput("name the namespaces that it may take part in with --namespace; none is nothing")
    for name in namespaces:
        if NAMESPACE.fullmatch(name) is None:
            raise InvalidInput(f"{name!r} is no name of a namespace")
