"""The broker's certificate on its own machine, for plugins that want the local hop encrypted too.

The authority is this control plane's, made when the first such plugin comes; plugins are shown its
certificate, and its key stays with the controller. The broker is told a certificate and key of its own with
each door that speaks TLS, and a new one before that ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crucible.backbone.authority import authority_in, is_fresh, utc_now
from crucible.errors import Unavailable
from crucible.model.door import BROKER

if TYPE_CHECKING:
    from pathlib import Path

    from crucible.backbone.authority import Authority, Issued


class Seal:
    """What both sides of an encrypted door need."""

    def __init__(self, folder: Path) -> None:
        """Begin with nothing; the folder is made when it is needed."""
        self._folder = folder
        self._issued: Issued | None = None

    def authority(self) -> str:
        """Return whom plugins are to believe, in PEM.

        Raises:
            InvalidInput: what lies in the folder is no authority.
            Unavailable: it cannot be read or made.
        """
        return self._own().certificate

    def serving(self) -> dict[str, str]:
        """Return the broker's ``certificate`` and ``key``, in PEM, good for a while yet.

        Raises:
            InvalidInput, Unavailable: as above.
        """
        now = utc_now()
        if self._issued is None or not is_fresh(self._issued.certificate, now):
            self._issued = self._own().server([BROKER], now)
        return {"certificate": self._issued.certificate, "key": self._issued.key}

    def _own(self) -> Authority:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return authority_in(self._folder, utc_now())
        except OSError as error:
            raise Unavailable(f"the authority for capabilities.bus.encryptLocal: {error}") from error
