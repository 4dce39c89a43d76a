"""What a sandbox tells the plugin in it: its names, its configuration, its door to the bus."""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Surroundings:
    """What the environment says.

    Attributes:
        plugin: the plugin's name.
        namespace: where it lives.
        instance: which of its instances this is.
        bus: path of the socket, or ``tls://HOST:PORT``; empty: this plugin has no bus.
        bus_authority: path of the certificate of who vouches for the broker; empty where it speaks no TLS.
        config: ``spec.config``.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self.plugin = environment.get("CRUCIBLE_PLUGIN", "")
        self.namespace = environment.get("CRUCIBLE_NAMESPACE", "")
        self.instance = environment.get("CRUCIBLE_INSTANCE", "")
        self.bus = environment.get("CRUCIBLE_BUS", "")
        self.bus_authority = environment.get("CRUCIBLE_BUS_CA", "")
        self.config: dict[str, Any] = {}
        path = environment.get("CRUCIBLE_CONFIG")
        if path:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs 0.5 MB
                self.config = json.load(file)
