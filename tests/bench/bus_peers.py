"""What the bus is measured against: request and reply over NATS, and calls of gRPC, both over mutual TLS.

Run as a program it is one client: ``bus_peers.py nats|grpc FOLDER PORT CALLS FLYING FLIGHT``; with ``serve``
in front, the one that answers.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Peer = "Callable[[int, int, int], Awaitable[tuple[list[float], float]]]"
DATA = b"x" * 256
METHOD = "/bench/say"


@asynccontextmanager
async def serving() -> AsyncIterator[dict[str, Any]]:
    """Run a NATS server and what answers there, and a gRPC server; end all of it."""
    with tempfile.TemporaryDirectory(prefix="crucible-bench-") as name:
        folder = Path(name)
        _certificates(folder)
        started = []
        try:
            server, port = await _nats_server(folder)
            started.append(server)
            started.append(await _answering("nats", folder, port))
            grpc_server = await _answering("grpc", folder, 0)
            started.append(grpc_server)
            assert grpc_server.stdout is not None
            grpc_port = int(await grpc_server.stdout.readline())
            yield {
                "nats": partial(_ask, "nats", folder, port),
                "grpc": partial(_ask, "grpc", folder, grpc_port),
            }
        finally:
            for process in reversed(started):
                process.kill()
                await process.wait()


async def _nats_server(folder: Path) -> tuple[asyncio.subprocess.Process, int]:
    binary = Path(sys.executable).with_name("nats-server")
    config = folder / "nats.conf"
    config.write_text(
        f'host: 127.0.0.1\nport: -1\nports_file_dir: "{folder}"\n'
        f'tls {{ cert_file: "{folder}/own.crt", key_file: "{folder}/own.key", '
        f'ca_file: "{folder}/ca.crt", verify: true }}\n'
    )
    server = await asyncio.create_subprocess_exec(
        binary, "-c", config, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(30):
        while True:
            for found in folder.glob("*.ports"):
                text = found.read_text()
                if text.strip():
                    return server, int(json.loads(text)["nats"][0].rpartition(":")[2])
            await asyncio.sleep(0.02)


async def _answering(kind: str, folder: Path, port: int) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "serve", kind, folder, str(port), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def _ask(kind: str, folder: Path, port: int, *numbers: int) -> tuple[list[float], float]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, kind, folder, *map(str, (port, *numbers))), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    found = json.loads(out)
    return found["times"], found["rate"]


def _certificates(folder: Path) -> None:
    authority = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    _write(folder / "ca", authority, _signed(name, authority, authority, None))
    own = ec.generate_private_key(ec.SECP256R1())
    alternative = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    )
    _write(folder / "own", own, _signed(name, own, authority, alternative))


def _signed(
    name: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    authority: ec.EllipticCurvePrivateKey,
    alternative: x509.SubjectAlternativeName | None,
) -> x509.Certificate:
    now = datetime.now(UTC)
    subject = (
        name if alternative is None else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=10))
        .add_extension(x509.BasicConstraints(ca=alternative is None, path_length=None), critical=True)
    )
    if alternative is not None:
        builder = builder.add_extension(alternative, critical=False)
    return builder.sign(authority, hashes.SHA256())


def _write(stem: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    stem.with_suffix(".key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    stem.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


async def _measure(say: Any, calls: int, flying: int, flight: int) -> None:
    """Call one after the other, then keep ``flight`` calls open, and print what came of it."""
    for _ in range(50):
        await say()
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        await say()
        times.append(time.perf_counter() - begin)
    left = iter(range(flying))

    async def go_on() -> None:
        for _ in left:
            await say()

    begin = time.perf_counter()
    await asyncio.gather(*(go_on() for _ in range(flight)))
    print(json.dumps({"times": times, "rate": flying / (time.perf_counter() - begin)}), flush=True)


async def _nats(folder: Path, port: int) -> Any:
    import nats  # noqa: PLC0415 - the other client has none of it

    context = ssl.create_default_context(cafile=folder / "ca.crt")
    context.load_cert_chain(folder / "own.crt", folder / "own.key")
    return await nats.connect(f"tls://localhost:{port}", tls=context)


async def _serve_nats(folder: Path, port: int) -> None:
    client = await _nats(folder, port)

    async def answer(message: Any) -> None:
        await message.respond(message.data)

    await client.subscribe("echo.say", cb=answer)
    await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def _call_nats(folder: Path, port: int, *numbers: int) -> None:
    client = await _nats(folder, port)
    await _measure(lambda: client.request("echo.say", DATA, timeout=30), *numbers)


async def _serve_grpc(folder: Path, port: int) -> None:
    import grpc  # noqa: PLC0415 - the other client has none of it

    async def say(request: bytes, _context: Any) -> bytes:
        return request

    server = grpc.aio.server()
    handlers = {"say": grpc.unary_unary_rpc_method_handler(say)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", handlers),))
    own = ((folder / "own.key").read_bytes(), (folder / "own.crt").read_bytes())
    authority = (folder / "ca.crt").read_bytes()
    port = server.add_secure_port(
        f"127.0.0.1:{port}", grpc.ssl_server_credentials([own], authority, require_client_auth=True)
    )
    await server.start()
    print("ready", flush=True)
    print(port, flush=True)
    await server.wait_for_termination()


async def _call_grpc(folder: Path, port: int, *numbers: int) -> None:
    import grpc  # noqa: PLC0415 - the other client has none of it

    credentials = grpc.ssl_channel_credentials(
        (folder / "ca.crt").read_bytes(), (folder / "own.key").read_bytes(), (folder / "own.crt").read_bytes()
    )
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        method = channel.unary_unary(METHOD)

        async def say() -> bytes:
            return bytes(await method(DATA))

        await _measure(say, *numbers)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _, _, kind, where, at = sys.argv
        asyncio.run({"nats": _serve_nats, "grpc": _serve_grpc}[kind](Path(where), int(at)))
    else:
        _, kind, where, *figures = sys.argv
        asyncio.run({"nats": _call_nats, "grpc": _call_grpc}[kind](Path(where), *map(int, figures)))
