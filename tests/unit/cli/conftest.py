"""A server that answers what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

from crucible.cli.app import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Request:
    verb: str
    path: str
    params: dict[str, str]
    kind: str
    body: Any


@dataclass
class FakeServer:
    """Answers in the order given for a verb and path; the last answer is given for ever."""

    url: str = ""
    answers: dict[tuple[str, str], list[tuple[int, Any]]] = field(default_factory=lambda: defaultdict(list))
    asked: list[Request] = field(default_factory=list)

    def answer(self, verb: str, path: str, *bodies: Any, code: int = 200) -> None:
        self.answers[verb, path] += [(code, body) for body in bodies]

    def take(self, verb: str, path: str) -> tuple[int, Any]:
        queue = self.answers.get((verb, path))
        if not queue:
            return 404, {"kind": "Status", "code": 404, "message": f"{verb} {path} not found"}
        return queue.pop(0) if len(queue) > 1 else queue[0]

    def said(self, verb: str) -> list[Request]:
        return [request for request in self.asked if request.verb == verb]


def _handler(fake: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            split = urlsplit(self.path)
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
            body = json.loads(data) if data else None
            kind = self.headers.get("content-type", "")
            fake.asked.append(Request(self.command, split.path, dict(parse_qsl(split.query)), kind, body))
            code, answer = fake.take(self.command, split.path)
            self.send_response(code)
            self.end_headers()
            lines = answer if isinstance(answer, list) else [answer]
            for line in lines:
                self.wfile.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")

        do_GET = do_PATCH = do_DELETE = do_POST = _serve  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake))
    fake.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def kubeconfig(server: FakeServer, tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": server.url}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
            }
        )
    )
    return path


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture
def crucible(kubeconfig: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command in this process, against the fake server."""
    monkeypatch.setenv("CRUCIBLE_KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv("COLUMNS", "120")

    def call(*words: str) -> Ended:
        code = run(list(words))
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return call


def plugin(name: str = "demo", **parts: Any) -> dict[str, Any]:
    meta = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "generation": 1,
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        **parts.get("metadata", {}),
    }
    spec = {
        "version": "1.0.0",
        "type": "python",
        "source": {"inline": {"main.py": "pass"}},
        "entrypoint": ["main.py"],
        **parts.get("spec", {}),
    }
    return {
        "apiVersion": "crucible.dev/v1alpha1",
        "kind": "Plugin",
        "metadata": meta,
        "spec": spec,
        "status": parts.get("status", {}),
    }


def ready(*, revision: str = "r1", **more: Any) -> dict[str, Any]:
    return {
        "observedGeneration": 1,
        "phase": "Running",
        "readyReplicas": 1,
        "revision": revision,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Running", "message": "1 of 1"}],
        **more,
    }


@pytest.fixture
def make_plugin() -> Any:
    return plugin


@pytest.fixture
def make_ready() -> Any:
    return ready
