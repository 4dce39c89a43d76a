"""``crucible bus certificates`` prints Secrets that brokers and servers can use."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import TYPE_CHECKING, Any

import yaml

from crucible.backbone.authority import authority_in, expiry, signed_by, utc_now
from crucible.backbone.mounted import papers_in
from crucible.cli.exits import REFUSED, USAGE

if TYPE_CHECKING:
    from pathlib import Path


def test_the_secrets_are_of_one_authority_which_stays_with_who_made_it(crucible: Any, tmp_path: Path) -> None:
    keys = tmp_path / "new" / "keys"
    ended = crucible(
        "bus", "certificates", "--authority", str(keys), "--days", "30", "-n", "tools", "--name", "b"
    )
    assert ended.code == 0, ended.err
    found = {one["metadata"]["name"]: one for one in yaml.safe_load_all(ended.out)}
    assert set(found) == {"b-tls", "b-nats-client", "b-nats-server"}
    names = {}
    for name, secret in found.items():
        assert (secret["kind"], secret["type"], secret["metadata"]["namespace"]) == (
            "Secret",
            "kubernetes.io/tls",
            "tools",
        )
        folder = tmp_path / name
        folder.mkdir()
        for file, text in secret["data"].items():
            (folder / file).write_bytes(b64decode(text))
        papers = papers_in(folder)
        names[name] = papers.names()
        assert papers.authority == (keys / "ca.crt").read_text()
        assert signed_by(papers.shown.certificate, papers.authority)
        until = expiry(papers.shown.certificate)
        assert until is not None
        assert (until - utc_now()).days in {29, 30}
    assert names == {
        "b-tls": ("bus",),
        "b-nats-client": ("crucible-broker",),
        "b-nats-server": ("b-nats", "b-nats.tools", "b-nats.tools.svc"),
    }
    key = (keys / "ca.key").read_text()
    assert key not in ended.out
    assert b64decode(found["b-tls"]["data"]["tls.key"]).decode() != key
    assert (keys / "ca.key").stat().st_mode & 0o077 == 0


def test_another_authority_can_be_believed_too_and_the_folders_is_made_once(
    crucible: Any, tmp_path: Path
) -> None:
    old = authority_in(tmp_path, utc_now()).certificate
    words = ("bus", "certificates", "--authority", str(tmp_path / "new"), "--without-nats", "-o", "json")
    ended = crucible(*words, "--trust", str(tmp_path / "ca.crt"))
    (secret,) = json.loads(ended.out)["items"]
    trusted = b64decode(secret["data"]["ca.crt"]).decode()
    ours = (tmp_path / "new" / "ca.crt").read_text()
    assert trusted == ours + old
    crucible(*words)
    assert (tmp_path / "new" / "ca.crt").read_text() == ours


def test_what_cannot_be_done_is_said(crucible: Any, tmp_path: Path) -> None:
    assert crucible("bus", "certificates").code == USAGE
    assert crucible("bus", "reload").code == USAGE
    words = ("bus", "certificates", "--authority", str(tmp_path))
    assert crucible(*words, "--days", "1825").code == 0
    (tmp_path / "ca.key").write_text("nothing")
    ended = crucible(*words)
    assert ended.code == REFUSED
    assert "are no certificate and its key" in ended.err
    ended = crucible(*words, "--trust", str(tmp_path / "nowhere"))
    assert ended.code == REFUSED
    for half in (("--backbone", "tls://a"), ("--backbone-certificates", "x")):
        assert crucible("broker", *half).code == USAGE
    both = ("--certificates", str(tmp_path), "--backbone-certificates", str(tmp_path))
    for url in ("nats://a:4222", "tls://a/b", "tls://u:p@a", "tls://", "tls://a:99999"):
        ended = crucible("broker", *both, "--backbone", url)
        assert ended.code == REFUSED
        assert "write tls://HOST:4222" in ended.err
