"""The file of ``--backbone``: what it may say, and how what is wrong is named."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from crucible.backbone.authority import authority_in, expiry, is_fresh, signed_by, utc_now
from crucible.backbone.machines import Machine, Machines, check_name, check_namespaces
from crucible.backbone.settings import Hosting, Place, pass_text, read_pass, read_settings
from crucible.errors import CrucibleError, InvalidInput, NotFound
from crucible.model.backbone import Joining, Meeting, Share

EXAMPLES = Path(__file__).parents[3] / "docs/examples/backbone"
SHARE = "share: {default: {machines: [beta], call: [tokenizer.*], publish: ['notes.>']}}\n"
SHARED = (Share("default", ("beta",), ("tokenizer.*",), ("notes.>",)),)


def write(folder: Path, text: str) -> Path:
    path = folder / "backbone.yaml"
    path.write_text(text)
    return path


def test_the_machine_that_has_the_server(tmp_path: Path) -> None:
    found = read_settings(write(tmp_path, "machine: alpha\nlisten: 10.0.0.1\n" + SHARE))
    assert found == Hosting("alpha", "10.0.0.1", 4222, (("10.0.0.1", 4222),), SHARED, Place("10.0.0.1", 4223))
    text = "machine: alpha\nlisten: '[::]:99'\nadvertise: alpha.example.com,10.0.0.1:98\n"
    found = read_settings(write(tmp_path, text))
    assert found == Hosting(
        "alpha", "::", 99, (("alpha.example.com", 99), ("10.0.0.1", 98)), (), Place("::", 100)
    )


@pytest.mark.parametrize("host", ["10.0.0.1", "alpha.example.com", "fd00::1"])
def test_a_machine_that_was_invited(tmp_path: Path, host: str) -> None:
    joining = Joining("beta", host, 4223, "CA\nMORE\n", "CERT\n", "KEY\n")
    (tmp_path / "beta.pass").write_text(pass_text(joining))
    found = read_settings(write(tmp_path, "pass: beta.pass\n" + SHARE))
    assert found == Joining("beta", host, 4223, "CA\nMORE\n", "CERT\n", "KEY\n", SHARED)


def test_a_server_of_ones_own(tmp_path: Path) -> None:
    for name in ("ca", "crt", "key"):
        (tmp_path / name).write_text(name)
    text = "machine: alpha\nurl: tls://nats.example.com\nca: ca\ncertificate: crt\nkey: key\n"
    assert read_settings(write(tmp_path, text)) == Joining(
        "alpha", "nats.example.com", 4222, "ca", "crt", "key"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "validation|valid"),
        ("[1]", "valid"),
        ("{", "no YAML"),
        ("machine: alpha\n", "exactly one of"),
        ("machine: alpha\nlisten: 10.0.0.1\npass: x\n", "exactly one of"),
        ("listen: 10.0.0.1\n", "machine"),
        ("machine: Alpha\nlisten: 10.0.0.1\n", "machine"),
        ("machine: alpha\nlisten: 0.0.0.0\n", "advertise"),
        ("machine: alpha\nlisten: '10.0.0.1:0'\n", "HOST:PORT"),
        ("machine: alpha\nlisten: '10.0.0.1:http'\n", "HOST:PORT"),
        ("machine: alpha\nlisten: 10.0.0.1\nport: 1\n", "port"),
        ("machine: alpha\nurl: nats://x\nca: a\ncertificate: b\nkey: c\n", "plain text"),
        ("machine: alpha\nurl: tls://x\n", "ca, certificate, key"),
        ("machine: alpha\nlisten: x\nshare: {default: {machines: ['?']}}\n", "share.default.machines"),
        ("machine: alpha\nlisten: x\nshare: {default: {call: [tokenizer]}}\n", "share.default.call"),
        ("machine: alpha\nlisten: x\nshare: {default: {call: [$host.open]}}\n", "share.default.call"),
        ("machine: alpha\nlisten: x\nshare: {default: {publish: ['a..b']}}\n", "share.default.publish"),
        ("machine: alpha\nlisten: x\nshare: {default: {publish: ['crucible.>']}}\n", "share.default.publish"),
        ("machine: alpha\nlisten: x\nshare: {Default: {}}\n", "share"),
        ("machine: alpha\nlisten: x\nshare: {default: {subscribe: [a]}}\n", "subscribe"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read_settings(write(tmp_path, text))


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.yaml"):
        read_settings(tmp_path / "none.yaml")
    with pytest.raises(NotFound, match=r"beta\.pass"):
        read_settings(write(tmp_path, "pass: beta.pass\n"))
    with pytest.raises(InvalidInput):
        read_pass(write(tmp_path, "machine: beta\n"))


def test_the_list_of_machines_is_kept_and_a_broken_one_is_not_overwritten(tmp_path: Path) -> None:
    machines = Machines(tmp_path)
    assert machines.all() == {}
    beta = Machine("beta", "t1", ("default", "tools"), "2027-01-01T00:00:00Z")
    machines.put(beta)
    machines.put(Machine("gamma", "t2", ("default",), ""))
    assert machines.all()["beta"] == beta
    assert beta.identity == "beta.t1.backbone.crucible"
    machines.drop("gamma")
    assert set(machines.all()) == {"beta"}
    with pytest.raises(NotFound):
        machines.drop("gamma")
    (tmp_path / "machines.json").write_text("{")
    with pytest.raises(InvalidInput):
        machines.put(beta)
    assert (tmp_path / "machines.json").read_text() == "{"


@pytest.mark.parametrize("name", ["", "Beta", "a.b", "a_b", "-a", "a" * 41, "crucible-manager", "*"])
def test_what_is_no_name_of_a_machine(name: str) -> None:
    with pytest.raises(CrucibleError):
        check_name(name)


def test_no_namespace_is_no_invitation() -> None:
    with pytest.raises(InvalidInput, match="--namespace"):
        check_namespaces(())
    with pytest.raises(InvalidInput):
        check_namespaces(("Default",))


def test_certificates_are_signed_end_and_are_renewed_in_time(tmp_path: Path) -> None:
    now = utc_now()
    authority = authority_in(tmp_path, now)
    assert authority_in(tmp_path, now).certificate == authority.certificate
    assert (tmp_path / "ca.key").stat().st_mode & 0o077 == 0
    issued = authority.machine("beta.t1.backbone.crucible", now)
    assert signed_by(issued.certificate, authority.certificate)
    assert is_fresh(issued.certificate, now)
    assert not is_fresh(issued.certificate, now + timedelta(days=70))
    other = tmp_path / "other"
    other.mkdir()
    assert not signed_by(issued.certificate, authority_in(other, now).certificate)
    assert not signed_by("nothing", authority.certificate)
    assert expiry("nothing") is None
    assert "PRIVATE" not in repr(issued)


def test_the_examples_of_the_documentation_are_read(tmp_path: Path) -> None:
    for path in sorted(EXAMPLES.glob("*.yaml")):
        (tmp_path / path.name).write_text(path.read_text())
    for name in ("ca.crt", "alpha.crt", "alpha.key"):
        (tmp_path / name).write_text(name)
    own = read_settings(tmp_path / "own-server.yaml")
    assert isinstance(own, Joining)
    assert (own.machine, own.authority, own.key) == ("alpha", "ca.crt", "alpha.key")
    (tmp_path / "beta.pass").write_text(pass_text(Joining("beta", "10.77.0.1", 4222, "CA", "CERT", "KEY")))
    alpha, beta = read_settings(tmp_path / "alpha.yaml"), read_settings(tmp_path / "beta.yaml")
    assert isinstance(alpha, Hosting)
    assert alpha.shares[0].machines == ("beta",)
    assert isinstance(beta, Joining)
    assert beta.shares[0].call == ("tokenizer.split",)


LISTENS = "machine: alpha\nlisten: {}\n"


@pytest.mark.parametrize(
    ("listen", "lines", "place"),
    [
        ("10.0.0.1", "none", None),
        ("127.0.0.1", "", Place()),  # nobody else is on the loopback
        ("'[::1]:4222'", "", Place()),
        ("10.0.0.1:65535", "", Place()),  # there is no port next to it
        ("10.0.0.1", "10.0.0.1:9", Place("10.0.0.1", 9)),
        ("10.0.0.1", "10.1.0.1", Place("10.1.0.1", 4223, "10.1.0.1")),
        ("10.0.0.1", "0.0.0.0:9", Place("0.0.0.0", 9)),  # noqa: S104 - compared, not bound
    ],
)
def test_where_the_machine_with_the_server_lets_direct_lines_in(
    tmp_path: Path, listen: str, lines: str, place: Place | None
) -> None:
    text = LISTENS.format(listen) + (f"lines: '{lines}'\n" if lines else "")
    found = read_settings(write(tmp_path, text))
    assert isinstance(found, Hosting)
    assert found.lines == place


def invited(folder: Path, identity: str, lines: str, *, serves: bool = True) -> Joining:
    made = folder / "authority"
    made.mkdir(exist_ok=True)
    authority = authority_in(made, utc_now())
    issued = authority.machine(identity, utc_now()) if serves else authority.server([identity], utc_now())
    joining = Joining("beta", "10.0.0.1", 4222, authority.certificate, issued.certificate, issued.key)
    (folder / "beta.pass").write_text(pass_text(joining))
    found = read_settings(write(folder, f"pass: beta.pass\n{lines}"))
    assert isinstance(found, Joining)
    return found


def test_a_machine_that_was_invited_goes_to_others_and_lets_them_in_only_where_it_is_told_to(
    tmp_path: Path,
) -> None:
    identity = "beta.0011.backbone.crucible"
    found = invited(tmp_path, identity, "")
    assert (found.meeting, found.listen) == (Meeting(identity), "")
    found = invited(tmp_path, identity, "lines: none\n")
    assert (found.meeting, found.listen) == (None, "")
    found = invited(tmp_path, identity, "lines: 10.0.0.2:9\n")
    assert (found.meeting, found.listen) == (Meeting(identity, "10.0.0.2", 9), "10.0.0.2")
    found = invited(tmp_path, "gamma.0011.backbone.crucible", "")  # nothing shows that it is beta
    assert found.meeting is None
    for text, why in (
        ("lines: 0.0.0.0\n", "every address"),
        ("lines: '[::]:9'\n", "every address"),
        ("lines: beta.example.com\n", "not a name"),
        ("lines: 10.0.0.2:0\n", "HOST:PORT"),
    ):
        with pytest.raises(InvalidInput, match=why):
            invited(tmp_path, identity, text)
    with pytest.raises(InvalidInput, match="backbone renew"):
        invited(tmp_path, "beta.example.com", "lines: 10.0.0.2:9\n", serves=False)
    with pytest.raises(InvalidInput, match="one DNS name"):
        invited(tmp_path, "gamma.example.com", "lines: 10.0.0.2:9\n")
