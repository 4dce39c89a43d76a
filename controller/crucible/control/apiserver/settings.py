"""What can be set about the local control plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of one ApiServer.

    Attributes:
        state_dir: Folder that holds everything the server keeps: ``control.db``, the CA and its
            certificates, the token, the kubeconfig and the lock. Made with mode 0700.
        host: Address to listen on. Only loopback addresses are accepted.
        port: Port to listen on; 0 takes the port remembered in ``state_dir``, choosing a free one the
            first time, so that clients' discovery caches stay valid.
        secrets_key: File with the key that encrypts Secrets at rest; None stores them as they come.
            Made on first use if it does not exist.
        max_body: Largest request body, in bytes.
        max_depth: Deepest nesting of a request body.
        max_requests: Requests answered at once, watches included; more are told to come back (429).
        max_connections: Connections at once, TLS handshakes under way included. For one more, the one goes
            that has asked for nothing for the longest time; where all have asked, the new one.
        header_timeout: Seconds a new connection has for its TLS handshake, and then for its first request.
        request_timeout: Seconds a request other than a watch, log or exec may take.
        watch_timeout: Seconds after which a watch without its own limit ends; clients start another.
        watch_queue: Events held for a slow watcher before its watch is closed.
        event_ttl: Seconds an Event is kept after it was last seen.
        most_events: Events kept at most, of all kinds of objects together.
        bookmark_interval: Seconds between bookmarks on a watch that asks for them.
        history_events: Events kept for watches that resume and for lists read in pages.
        history_bytes: Bytes of objects kept for the same.
    """

    state_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    secrets_key: Path | None = None
    max_body: int = 3 * 1024 * 1024
    max_depth: int = 100
    max_requests: int = 1024
    max_connections: int = 768
    header_timeout: float = 10.0
    request_timeout: float = 60.0
    watch_timeout: float = 3600.0
    watch_queue: int = 1024
    event_ttl: float = 3600.0
    most_events: int = 1000
    bookmark_interval: float = 60.0
    history_events: int = 8192
    history_bytes: int = 8 * 1024 * 1024
