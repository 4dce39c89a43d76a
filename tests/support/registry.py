"""A registry to pull from, as small as the protocol allows; it runs beside an engine and can misbehave.

Usage: ``python3 registry.py FOLDER``. In FOLDER: blobs by digest, ``tags.json`` with a manifest's digest by
``name:tag``, and ``mode``: empty, or how it misbehaves now.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ALIKE = 1 << 16
USER, WORD = "helped", "s3cret"
KEY = base64.b64encode(f"{USER}:{WORD}".encode()).decode()
"""What opens the registry while its mode is ``private``."""


class Handler(BaseHTTPRequestHandler):
    """Answers pulls."""

    place = Path()
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        mode = (self.place / "mode").read_text()
        while mode == "hangs":
            time.sleep(0.05)
            mode = (self.place / "mode").read_text()
        if mode == "denies":
            self.say(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}')
            return
        if mode == "private" and self.headers.get("Authorization") != f"Basic {KEY}":
            body = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
            self.say(401, body, challenge='Basic realm="private"')
            return
        if self.path == "/v2/":
            self.say(200, b"{}")
            return
        _, _, rest = self.path.partition("/v2/")
        name, _, reference = rest.replace("/blobs/", "/manifests/").partition("/manifests/")
        tags = json.loads((self.place / "tags.json").read_text())
        digest = reference if reference.startswith("sha256:") else tags.get(f"{name}:{reference}", "")
        blob = self.place / digest.replace(":", "-")
        if not digest or not blob.exists():
            self.say(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
            return
        body = blob.read_bytes()
        manifest = "/manifests/" in self.path
        if mode == "lies" and manifest:
            body = body + b" "
        if mode == "breaks" and not manifest and len(body) > ALIKE:
            self.say(200, body, whole=False)
            return
        if mode == "slow" and not manifest and len(body) > ALIKE:
            self.drip(body)
            return
        kind = MANIFEST if manifest else "application/octet-stream"
        self.say(200, body if with_body else b"", kind, digest, size=len(body))

    def say(
        self, code: int, body: bytes, kind: str = "application/json", digest: str = "", **how: Any
    ) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Length", str(how.get("size", len(body))))
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        if "challenge" in how:
            self.send_header("WWW-Authenticate", how["challenge"])
        self.end_headers()
        if how.get("whole", True):
            self.wfile.write(body)
        else:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True

    def drip(self, body: bytes) -> None:
        """Send a blob in pieces, until it is told to get on with it."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for start in range(0, len(body), 1 << 18):
            self.wfile.write(body[start : start + (1 << 18)])
            self.wfile.flush()
            if (self.place / "mode").read_text() == "slow":
                time.sleep(0.4)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    Handler.place = Path(sys.argv[1])
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        (Handler.place / "port").write_text(str(server.server_address[1]))
        server.serve_forever()
