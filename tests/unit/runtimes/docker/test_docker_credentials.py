"""Private registries: what `docker login` and credential helpers have reaches the engine, and nobody else."""

from __future__ import annotations

import asyncio
import base64
import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest

from crucible.errors import CrucibleError, InvalidSource, Unavailable, Underway
from crucible.runtimes.docker.engine import Engine
from crucible.runtimes.docker.pulls import Pulls
from crucible.runtimes.docker.settings import DockerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 30
HELPER = """\
#!/bin/sh
read server
echo "$1 $server" >> "{asked}"
case "$server" in
    private.example:5000) echo '{{"ServerURL":"s","Username":"helped","Secret":"s3cret"}}' ;;
    tokens.example) echo '{{"ServerURL":"s","Username":"<token>","Secret":"t0ken"}}' ;;
    broken.example) echo 'no JSON' ;;
    locked.example) echo 'the keyring is locked'; exit 1 ;;
    *) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"""


class Answerer(BaseHTTPRequestHandler):
    """An engine that pulls whatever it is asked for, and notes with which credentials."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.say({"Version": "28.0", "ApiVersion": "1.47", "MinAPIVersion": "1.24"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        given = self.headers.get("X-Registry-Auth") or ""
        self.server.given.append(json.loads(base64.urlsafe_b64decode(given)) if given else {})  # type: ignore[attr-defined]
        self.say({"status": "Pull complete"})

    def say(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Imitation(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.given: list[dict[str, str]] = []


class Scene:
    """A user with a Docker configuration and a credential helper, and an engine that only notes."""

    def __init__(self, place: Path, server: Imitation) -> None:
        self.server = server
        self.place = place
        self.asked = place / "asked"
        self.settings = DockerSettings(place, "here", f"unix://{server.server_address!s}", retry=0.01)
        self.rung = asyncio.Event()

    def configure(self, **words: Any) -> None:
        (self.place / "config.json").write_text(json.dumps(words))

    async def pull(self, reference: str) -> dict[str, str]:
        """Pull as a Plugin's loop does; return the credentials that the engine was given."""
        engine = Engine(self.settings)
        pulls = Pulls(engine, self.settings, lambda _: self.rung.set())
        try:
            await engine.connect()
            async with asyncio.timeout(SECONDS):
                while True:
                    self.rung.clear()
                    try:
                        pulls.ask(reference, "uid-a")
                    except Underway:
                        await self.rung.wait()
                    else:
                        return self.server.given[-1]
        finally:
            engine.close()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    with Imitation(str(tmp_path / "engine.sock"), Answerer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        found = Scene(tmp_path, server)
        helper = tmp_path / "docker-credential-chest"
        helper.write_text(HELPER.format(asked=found.asked))
        helper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        yield found
        server.shutdown()
        thread.join()


async def test_what_docker_login_wrote_goes_to_its_registry_alone(scene: Scene) -> None:
    word = base64.b64encode(b"logged-in:w0rd").decode()
    scene.configure(auths={"private.example:5000": {"auth": word}})
    given = await scene.pull("private.example:5000/team/app:1")
    assert (given["username"], given["password"]) == ("logged-in", "w0rd")
    assert await scene.pull("other.example/team/app:1") == {}
    assert await scene.pull("app:1") == {}


@pytest.mark.parametrize(
    "configured",
    [{"credHelpers": {"private.example:5000": "chest"}}, {"credsStore": "chest"}],
    ids=["a helper for one registry", "a store for all"],
)
async def test_a_credential_helper_is_asked_for_the_very_registry(
    scene: Scene, configured: dict[str, Any]
) -> None:
    scene.configure(**configured)
    digest = "sha256:" + "0" * 64
    for name in ("private.example:5000/team/app:1", f"private.example:5000/team/app@{digest}"):
        given = await scene.pull(name)
        assert (given["Username"], given["Password"]) == ("helped", "s3cret")
        assert given["ServerAddress"] == "private.example:5000"
    assert scene.asked.read_text().split("\n")[:2] == ["get private.example:5000"] * 2
    assert await scene.pull("other.example/team/app:1") == {}, "it has none for that one"


async def test_a_helper_may_have_a_token(scene: Scene) -> None:
    scene.configure(credsStore="chest")
    assert (await scene.pull("tokens.example/app:1"))["IdentityToken"] == "t0ken"


@pytest.mark.filterwarnings("ignore:docker-credential-absent")
@pytest.mark.parametrize(
    ("registry", "helper", "words"),
    [
        ("private.example", "absent", "docker-credential-absent not installed"),
        ("locked.example", "chest", "the keyring is locked"),
        ("broken.example", "chest", "does not work"),
    ],
)
async def test_a_helper_that_does_not_work_is_named_with_the_fix(
    scene: Scene, registry: str, helper: str, words: str
) -> None:
    scene.configure(credHelpers={registry: helper})
    with pytest.raises(InvalidSource) as refusal:
        await scene.pull(f"{registry}/app:1")
    said = str(refusal.value)
    assert all(word in said for word in (words, f"credentials for {registry}", f"{scene.place}/config.json"))
    assert "install it for the user who runs the controller" in said
    assert scene.server.given == [], "it is not pulled as nobody instead"
    assert await scene.pull("other.example/app:1") == {}, "others are"


@pytest.mark.parametrize("text", ["[1]", '{"auths": {"x": {"auth": "bm9jb2xvbg=="}}}', '{"auths": {"x": 1}}'])
async def test_a_configuration_that_is_none_is_named_with_the_fix(scene: Scene, text: str) -> None:
    (scene.place / "config.json").write_text(text)
    with pytest.raises(CrucibleError) as refusal:
        await scene.pull("private.example/app:1")
    assert isinstance(refusal.value, Unavailable)
    assert f"{scene.place}/config.json is no configuration of Docker's" in str(refusal.value)
