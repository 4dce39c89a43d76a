"""The contract between the core and a runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from crucible.model.enforcement import Capabilities
    from crucible.model.instance import Instance
    from crucible.model.workload import Slot, Workload


class Runtime(Protocol):
    """Makes, watches and removes instances.

    The contract every runtime keeps, and one conformance suite checks:

    - Every verb is idempotent: asking twice is asking once, asking for what is already so is a success.
    - A plugin's own failure is never an exception: a program that cannot be executed, a sandbox the
      manifest makes impossible or a limit too small to start in become an ``EXITED`` instance whose
      ``exit.problem`` says why. ``Unavailable`` means that the runtime itself does not answer.
    - ``start`` writes down what it is about to make before it makes it. Whatever moment the controller
      dies, the next ``open`` finds the instance running, finds it ended, or finds nothing of it.
    - An ended instance stays listed, with its exit and its output, until ``remove``.
    - Nothing that bears another control plane's mark, or none, is ever touched.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this runtime holds a plugin to on this host; fixed once opened."""
        ...

    @property
    def outage(self) -> str:
        """Why this runtime does not answer now, and the fix; empty while it does.

        What :meth:`instances` returns meanwhile is what was known last.
        """
        ...

    async def open(self, changed: Callable[[str], None]) -> None:
        """Adopt what earlier controllers left and begin to watch.

        A runtime that lives elsewhere and does not answer is no error here: it is an ``outage``.

        Args:
            changed: called in the event loop with a plugin's uid whenever one of its instances came up,
                ended, or raised or lowered a notice, whoever caused it, and with the uid of every instance's
                plugin when an outage begins or ends.
        """
        ...

    async def close(self) -> None:
        """Stop watching. Instances go on running."""
        ...

    def instances(self, plugin_uid: str | None = None) -> tuple[Instance, ...]:
        """Return the instances of one plugin, or all of this control plane, oldest first."""
        ...

    async def start(self, workload: Workload, slot: Slot) -> Instance:
        """Start one instance, or return the one that already has this slot."""
        ...

    async def stop(self, plugin_uid: str, slot: Slot) -> None:
        """Ask an instance to end (SIGTERM to the plugin's main process) and note the time; do not wait."""
        ...

    async def kill(self, plugin_uid: str, slot: Slot) -> None:
        """End an instance and every process below it, now."""
        ...

    async def remove(self, plugin_uid: str, slot: Slot) -> None:
        """Forget an ended instance and delete all that was made for it; kill it first if it is alive."""
        ...

    def logs(self, plugin_uid: str, slot: Slot, *, tail: int | None, follow: bool) -> AsyncIterator[bytes]:
        """Yield an instance's output, oldest first: whole lines, without their ends.

        Args:
            plugin_uid: the Plugin.
            slot: the instance.
            tail: only this many last lines; None for all that is kept.
            follow: go on until the instance is removed or has ended and all is said.

        Raises:
            NotFound: no such instance.
        """
        ...
