"""Calls between plugins of two machines, in two networks with a wire between, beside NATS there.

Run as a program it is one end: ``backbone.py nats-ask|nats-serve FOLDER`` or ``plugin-ask|plugin-serve``.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[:0] = [
    str(Path(__file__).parents[1] / "support"),
    str(Path(__file__).parents[2] / "plugin-images/python/sdk"),
]

if TYPE_CHECKING:
    from rows import Row

ROUNDS = 5
CALLS = 1000
FLYING = 4000
FLIGHT = 64
DATA = b"x" * 256
PORT = 4322
"""Of the raw peer's server; the backbone has 4222, and 4223 for direct lines. In a network of our own."""
MACHINE = str(Path(__file__).parents[1] / "support" / "machine.py")
SHARE = "share: {here: {machines: ['*'], call: ['echo.say']}}\n"


async def calls() -> list[Row]:
    """One call after the other, and 64 at once: ours and the peer's in turns, medians of the rounds."""
    return await asyncio.to_thread(_calls)


def _calls() -> list[Row]:
    from networks import Networks, missing  # noqa: PLC0415 - the ends of it need none of this
    from rows import Row, median, percentile  # noqa: PLC0415 - the same

    why = missing()
    if why:
        print(f"backbone: not measured: {why}", file=sys.stderr)
        return []
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="crucible-bench-") as name, Networks() as networks:
        folder = Path(name)
        ours, theirs = _machines(folder, networks), _nats(folder, networks)
        for _ in range(ROUNDS):
            for kind, ask in (("bus", ours), ("nats", theirs)):
                told = json.loads(subprocess.run(ask, check=True, capture_output=True).stdout)
                found.setdefault(f"{kind}-p50", []).append(1e6 * median(told["times"]))
                found.setdefault(f"{kind}-p99", []).append(1e6 * percentile(told["times"], 0.99))
                found.setdefault(f"{kind}-rate", []).append(told["rate"])
    middle = {key: median(values) for key, values in found.items()}
    rows = [
        Row(f"backbone-call-{share}", "µs", middle[f"bus-{share}"], middle[f"nats-{share}"], 1.15)
        for share in ("p50", "p99")
    ]
    rate = f"backbone-{FLIGHT}-in-flight"
    return [*rows, Row(rate, "/s", middle["bus-rate"], middle["nats-rate"], 1 / 1.15, at_least=True)]


def _machines(folder: Path, networks: Any) -> list[str]:
    """Join two machines, with a plugin each; return what measures."""
    from networks import ADDRESSES  # noqa: PLC0415

    from crucible.backbone.keeper import invite  # noqa: PLC0415
    from crucible.backbone.machines import Machine, fresh_token  # noqa: PLC0415
    from crucible.backbone.settings import pass_text  # noqa: PLC0415

    alpha, beta = folder / "alpha", folder / "beta"
    for place, plugins in ((alpha, {"asker": {"call": ["echo.say"]}}), (beta, {"echo": {}})):
        place.mkdir()
        (place / "plugins.json").write_text(json.dumps(plugins))
    settings = alpha / "backbone.yaml"
    settings.write_text(f"machine: alpha\nlisten: {ADDRESSES[0]}\n{SHARE}")
    networks.start(0, sys.executable, MACHINE, str(alpha), str(settings))
    _until((alpha / "backbone" / "address").exists)
    joining = invite(alpha / "backbone", Machine("beta", fresh_token(), ("here",), ""), 1)
    (beta / "beta.pass").write_text(pass_text(joining))
    settings = beta / "backbone.yaml"
    settings.write_text(f"pass: beta.pass\n{SHARE}")
    networks.start(1, sys.executable, MACHINE, str(beta), str(settings))
    doors = {place: place / name / "bus.sock" for place, name in ((alpha, "asker"), (beta, "echo"))}
    networks.start(1, "env", f"CRUCIBLE_BUS={doors[beta]}", sys.executable, __file__, "plugin-serve")
    ask = networks.inside(0, "env", f"CRUCIBLE_BUS={doors[alpha]}", sys.executable, __file__, "plugin-ask")
    _until(lambda: subprocess.run([*ask, "1"], capture_output=True, check=False).returncode == 0)
    return [*ask, str(CALLS)]


def _nats(folder: Path, networks: Any) -> list[str]:
    """Start a server and one that answers there; return what measures."""
    from networks import ADDRESSES  # noqa: PLC0415

    from crucible.backbone.authority import authority_in, utc_now  # noqa: PLC0415
    from crucible.backbone.server import nats_server  # noqa: PLC0415

    place = folder / "peer"
    place.mkdir()
    authority = authority_in(place, utc_now())
    for name, issued in (
        ("server", authority.server([ADDRESSES[0]], utc_now())),
        ("own", authority.machine("bench", utc_now())),
    ):
        (place / f"{name}.pem").write_text(issued.certificate + issued.key)
    files = {"cert_file": "server.pem", "key_file": "server.pem", "ca_file": "ca.crt"}
    tls = {key: str(place / name) for key, name in files.items()}
    tls |= {"verify": True, "handshake_first": True, "min_version": "1.3"}
    (place / "conf").write_text(json.dumps({"host": ADDRESSES[0], "port": PORT, "tls": tls}))
    # A shell that says ready and ends the server with its own input, as Networks.start wants it.
    script = 'nats=$1; shift; "$nats" "$@" >/dev/null 2>&1 & echo ready; cat >/dev/null; kill $!'
    networks.start(0, "sh", "-c", script, "sh", str(nats_server()), "-c", str(place / "conf"))
    networks.start(1, sys.executable, __file__, "nats-serve", str(place))
    return networks.inside(0, sys.executable, __file__, "nats-ask", str(place), str(CALLS))


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the machines do not find each other")
        time.sleep(0.05)


# The ends.


async def _connect(place: Path) -> Any:
    import nats  # noqa: PLC0415 - the other ends have none of it
    from networks import ADDRESSES  # noqa: PLC0415 - the same

    context = ssl.create_default_context(cafile=place / "ca.crt")
    context.load_cert_chain(place / "own.pem")
    url = f"tls://{ADDRESSES[0]}:{PORT}"
    return await nats.connect(url, tls=context, tls_handshake_first=True)


async def _nats_serve(place: Path) -> None:
    client = await _connect(place)

    async def answer(message: Any) -> None:
        await message.respond(message.data)

    await client.subscribe("echo.say", cb=answer)
    await client.flush()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await client.close()


async def _nats_ask(place: Path, count: int) -> None:
    client = await _connect(place)
    for _ in range(50):
        await client.request("echo.say", DATA, timeout=30)
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        await client.request("echo.say", DATA, timeout=30)
        times.append(time.perf_counter() - begin)
    left = iter(range(FLYING))

    async def go_on() -> None:
        for _ in left:
            await client.request("echo.say", DATA, timeout=30)

    begin = time.perf_counter()
    await asyncio.gather(*(go_on() for _ in range(FLIGHT)))
    print(json.dumps({"times": times, "rate": FLYING / (time.perf_counter() - begin)}), flush=True)
    await client.close()


def _plugin_serve() -> None:
    from crucible_plugin import Plugin  # noqa: PLC0415 - the other ends have none of it

    plugin = Plugin()

    @plugin.method(inline=True, raw=True)
    def say(request: Any) -> bytes:
        return bytes(request.payload)

    with plugin:
        print("ready", flush=True)
        sys.stdin.read()


def _plugin_ask(count: int) -> None:
    from crucible_plugin import Plugin  # noqa: PLC0415 - the other ends have none of it

    sys.path.insert(0, str(Path(__file__).parents[1] / "plugins" / "talking"))
    import wire  # noqa: PLC0415 - the same

    with Plugin() as plugin:
        for _ in range(min(50, count)):
            plugin.call("echo.say", DATA, raw=True)
        times = []
        for _ in range(count):
            begin = time.perf_counter()
            plugin.call("echo.say", DATA, raw=True)
            times.append(time.perf_counter() - begin)
    bus, kept, ident, done = wire.Bus(), b"", 1, 0
    flying = min(FLYING, 4 * count)
    begin, asked = time.perf_counter(), min(FLIGHT, flying)
    fresh = asked
    while done < flying:
        frames = [wire.frame(wire.CALL, ident + 2 * n, "echo.say", DATA) for n in range(fresh)]
        bus.socket.sendall(b"".join(frames))
        ident += 2 * fresh
        kept, came = wire.count(kept + bus.socket.recv(65536))
        done += came
        fresh = min(came, flying - asked)
        asked += fresh
    print(json.dumps({"times": times, "rate": flying / (time.perf_counter() - begin)}), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["nats-serve", where]:
            asyncio.run(_nats_serve(Path(where)))
        case ["nats-ask", where, number]:
            asyncio.run(_nats_ask(Path(where), int(number)))
        case ["plugin-serve"]:
            _plugin_serve()
        case ["plugin-ask", number]:
            _plugin_ask(int(number))
