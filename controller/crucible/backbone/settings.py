"""The file that ``crucible up --backbone`` names: who this machine is to others, and what it shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crucible.core import backbone, subjects
from crucible.core.bus import is_method
from crucible.errors import InvalidInput, NotFound
from crucible.model.backbone import ANY, PORT, Joining, Share

if TYPE_CHECKING:
    from pathlib import Path

_MOST_BYTES: Final = 1 << 18
_SCHEME: Final = "tls://"
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
    share: dict[_Namespace, _Share] = Field(default_factory=dict, max_length=64)


class _Pass(_Part):
    machine: _Machine
    url: str
    ca: str
    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class Hosting:
    """This machine has the server.

    Attributes:
        machine: who it is itself.
        host: address to listen at.
        port: there.
        advertised: addresses and names, with ports, by which others reach it; the first is in passes.
        shares: what others may do here.
    """

    machine: str
    host: str
    port: int
    advertised: tuple[tuple[str, int], ...]
    shares: tuple[Share, ...]


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
            return read_pass(path.parent / written.invitation, shares)
        case _:
            return _own(path, written, shares)


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
    return Hosting(written.machine, host, port, others, shares)


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
