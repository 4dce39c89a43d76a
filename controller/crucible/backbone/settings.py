"""The file that ``crucible up --backbone`` names: who this machine is to others, and what it shares."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crucible.backbone.authority import identity_of, may_serve
from crucible.core import backbone, subjects
from crucible.core.bus import is_method
from crucible.core.meeting import is_of
from crucible.errors import InvalidInput, NotFound
from crucible.model.backbone import ANY, PORT, Joining, Meeting, Share

if TYPE_CHECKING:
    from pathlib import Path

_MOST_BYTES: Final = 1 << 18
_SCHEME: Final = "tls://"
_NO_LINES: Final = "none"
_LAST_PORT: Final = 65535
_Machine = Annotated[str, Field(pattern=f"^({backbone.MACHINE.pattern})$")]
_Namespace = Annotated[str, Field(pattern=f"^({backbone.NAMESPACE.pattern})$")]
_Words = Annotated[tuple[str, ...], Field(max_length=64)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Model = TypeVar("_Model", bound=_Part)


class _Share(_Part):
    machines: _Words = ()
    call: _Words = ()
    publish: _Words = ()


class _Written(_Part):
    """The file as it is written. Exactly one of ``listen``, ``pass`` and ``url``."""

    machine: _Machine = ""
    listen: str = ""
    advertise: str = ""
    invitation: str = Field("", alias="pass")
    url: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    lines: str = ""
    share: dict[_Namespace, _Share] = Field(default_factory=dict, max_length=64)


class _Pass(_Part):
    machine: _Machine
    url: str
    ca: str
    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where this machine lets the direct lines of others in.

    Attributes:
        listen: address; empty: nowhere, it goes to others only.
        port: there.
        host: by which address others reach it; empty: as they reach the server, which is here.
    """

    listen: str = ""
    port: int = 0
    host: str = ""


@dataclass(frozen=True, slots=True)
class Hosting:
    """This machine has the server.

    Attributes:
        machine: who it is itself.
        host: address to listen at.
        port: there.
        advertised: addresses and names, with ports, by which others reach it; the first is in passes.
        shares: what others may do here.
        lines: where direct lines come in; None: there are none.
    """

    machine: str
    host: str
    port: int
    advertised: tuple[tuple[str, int], ...]
    shares: tuple[Share, ...]
    lines: Place | None = None


def read_settings(path: Path) -> Hosting | Joining:
    """Read the file, and those that it names.

    Raises:
        NotFound: one of them does not exist.
        InvalidInput: something in it is wrong; says what, and what to write.
    """
    written = _parse(_Written, path)
    shares = tuple(_share(path, name, one) for name, one in sorted(written.share.items()))
    ways = [name for name, given in _ways(written).items() if given]
    if len(ways) != 1:
        raise InvalidInput(
            f"{path}: write exactly one of listen (this machine has the server), pass (it was invited) and "
            "url (the server is yours)"
        )
    match ways[0]:
        case "listen":
            return _hosting(path, written, shares)
        case "pass":
            return _met(path, written, read_pass(path.parent / written.invitation, shares))
        case _:
            return _met(path, written, _own(path, written, shares))


def meeting(machine: str, certificate: str, place: Place | None) -> Meeting | None:
    """Return how a machine can be met; None: it is to have no lines, or nothing shows who it is."""
    identity = identity_of(certificate)
    if place is None or not is_of(identity, machine):
        return None
    return Meeting(identity, place.host, place.port)


def pass_named(path: Path) -> Path | None:
    """Return which pass the file names; None where it names none.

    Raises:
        NotFound, InvalidInput: as :func:`read_settings`.
    """
    written = _parse(_Written, path)
    return path.parent / written.invitation if written.invitation else None


def read_pass(path: Path, shares: tuple[Share, ...] = ()) -> Joining:
    """Read what ``crucible backbone invite`` wrote.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it is none.
    """
    found = _parse(_Pass, path)
    host, port = _address(path, "url", found.url.removeprefix(_SCHEME))
    return Joining(found.machine, host, port, found.ca, found.certificate, found.key, shares)


def pass_text(joining: Joining) -> str:
    """Return what :func:`read_pass` reads."""
    host = f"[{joining.host}]" if ":" in joining.host else joining.host
    words = {
        "machine": joining.machine,
        "url": f"{_SCHEME}{host}:{joining.port}",
        "ca": joining.authority,
        "certificate": joining.certificate,
        "key": joining.key,
    }
    return str(yaml.safe_dump(words, sort_keys=False, default_style=None))


def _ways(written: _Written) -> dict[str, str]:
    return {"listen": written.listen, "pass": written.invitation, "url": written.url}


def _hosting(path: Path, written: _Written, shares: tuple[Share, ...]) -> Hosting:
    if not written.machine:
        raise InvalidInput(f"{path}: machine: say what this machine is called: machine: NAME")
    host, port = _address(path, "listen", written.listen)
    if written.advertise:
        others = tuple(_address(path, "advertise", word, port) for word in written.advertise.split(","))
    elif host in ("0.0.0.0", "::", "[::]"):  # noqa: S104 - compared, not bound
        raise InvalidInput(f"{path}: advertise: say how others reach {host}: HOST:PORT")
    else:
        others = ((host, port),)
    return Hosting(written.machine, host, port, others, shares, _lines(path, written, (host, port)))


def _lines(path: Path, written: _Written, server: tuple[str, int] | None) -> Place | None:
    """Read where direct lines come in.

    Unless it is written down, a machine listens for them only where it has agreed to be reached: at the
    address of the server, where that is here and others can reach it.
    """
    if written.lines == _NO_LINES:
        return None
    if not written.lines:
        host, port = server or ("127.0.0.1", _LAST_PORT)
        return Place() if _is_loopback(host) or port == _LAST_PORT else Place(host, port + 1)
    host, port = _address(path, "lines", written.lines, PORT + 1)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise InvalidInput(f"{path}: lines: {host!r}: write an address of this machine, not a name") from None
    if address.is_unspecified and server is None:
        raise InvalidInput(f"{path}: lines: {host} is every address: write the one by which others reach it")
    here = address.is_unspecified or (server is not None and server[0] == host)
    return Place(host, port, "" if here else host)


def _met(path: Path, written: _Written, joining: Joining) -> Joining:
    """Say how a machine that joined a server elsewhere can be met."""
    place = _lines(path, written, None)
    met = meeting(joining.machine, joining.certificate, place)
    if place is None or not place.listen:
        return replace(joining, meeting=met)
    if met is None or not may_serve(joining.certificate):
        raise InvalidInput(
            f"{path}: lines: the certificate lets nobody come to {joining.machine}: it has to be made "
            f"out to one DNS name, {joining.machine} or {joining.machine}.…, and be good for servers and "
            "clients; a pass of an earlier release is after crucible backbone renew"
        )
    return replace(joining, meeting=met, listen=place.listen)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _own(path: Path, written: _Written, shares: tuple[Share, ...]) -> Joining:
    """Read how to join a server that is the user's own."""
    missing = [name for name in ("machine", "ca", "certificate", "key") if not getattr(written, name)]
    if missing:
        raise InvalidInput(f"{path}: {', '.join(missing)}: needed with url")
    if not written.url.startswith(_SCHEME):
        raise InvalidInput(f"{path}: url: begin with {_SCHEME}: nothing is said in plain text")
    host, port = _address(path, "url", written.url.removeprefix(_SCHEME), PORT)
    named = (written.ca, written.certificate, written.key)
    ca, certificate, key = (_read(path.parent / name) for name in named)
    return Joining(written.machine, host, port, ca, certificate, key, shares)


def _share(path: Path, namespace: str, written: _Share) -> Share:
    where = f"{path}: share.{namespace}"
    for name in written.machines:
        if name != ANY and backbone.MACHINE.fullmatch(name) is None:
            raise InvalidInput(f"{where}.machines: {name!r} is no name of a machine, nor '*' for every one")
    for name in written.call:
        if not is_method(name) or name.startswith("$"):
            raise InvalidInput(f"{where}.call: {name!r}: write plugin.method, or plugin.* for all it has")
    for pattern in written.publish:
        if not subjects.is_pattern(pattern) or subjects.is_ours(pattern):
            raise InvalidInput(f"{where}.publish: {pattern!r} is no pattern of plugins' subjects")
    return Share(namespace, written.machines, written.call, written.publish)


def _address(path: Path, field: str, text: str, port: int = PORT) -> tuple[str, int]:
    """Read ``HOST:PORT``, ``[HOST]:PORT`` or ``HOST``."""
    host, colon, number = text.strip().rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, number = text.strip(), str(port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or "/" in host or not number.isdecimal() or not 0 < int(number) < 65536:  # noqa: PLR2004 - ports
        raise InvalidInput(f"{path}: {field}: {text!r}: write HOST:PORT")
    return host, int(number)


def _parse(model: type[_Model], path: Path) -> _Model:
    try:
        return model.model_validate(_load(path))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{path}: {field}: {first['msg']}") from None


def _load(path: Path) -> object:
    try:
        return yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        raise InvalidInput(f"{path} is no YAML") from error


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode()
    except FileNotFoundError as error:
        raise NotFound(f"{path}: there is no such file") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is no text") from error
