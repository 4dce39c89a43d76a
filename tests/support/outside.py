"""Another network at the end of a cable, beside the one a test is in: what is there is not this host's."""

from __future__ import annotations

import ctypes
import socket
import subprocess
import threading
from pathlib import Path
from typing import Final

OUTSIDE: Final = ("93.184.216.34", "93.184.216.35", "169.254.169.254", "10.9.8.7")
_HERE: Final = "198.18.0.1"
_NEW_NETWORK: Final = 0x40000000


class Outside:
    """A network that this host reaches over a cable, with servers on addresses that are not this host's."""

    def __init__(self) -> None:
        script = "ip link set lo up && echo ready && exec cat"
        self._keeper = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == b"ready\n"
        pid = self._keeper.pid
        far = f"nsenter --net=/proc/{pid}/ns/net ip"
        for command in (
            f"ip link add cable type veth peer name cable netns {pid}",
            f"ip address add {_HERE}/32 dev cable",
            "ip link set cable up",
            *(f"{far} address add {address}/32 dev cable" for address in OUTSIDE),
            f"{far} link set cable up",
            *(f"ip route add {address} dev cable" for address in OUTSIDE),
            f"{far} route add {_HERE} dev cable",
        ):
            subprocess.run(command.split(), check=True)

    def socket(self, host: str, port: int) -> socket.socket:
        """Return a socket that is bound out there."""
        made: list[socket.socket] = []

        def make() -> None:  # in a thread of its own, which stays in that network and ends
            with Path(f"/proc/{self._keeper.pid}/ns/net").open() as network:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(network.fileno(), _NEW_NETWORK) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_server((host, port)))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]

    def close(self) -> None:
        self._keeper.communicate()
        subprocess.run(["ip", "link", "delete", "cable"], check=False, capture_output=True)
