"""The file of a store: records one after the other, each with a checksum, an operation, a key and a value.

Files are reached by a descriptor of their folder alone, because the broker may walk nowhere else. Blocking:
for a thread of its own.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

PUT, DELETE, ABOUT = 1, 2, 3
_RECORD: Final = struct.Struct(">IQBHI")
_READ: Final = 1024 * 1024
_LONGEST: Final = 4 * 1024 * 1024


def about_of(folder: int, name: str) -> bytes:
    """Return whose a bucket is, as it was last told; empty when that cannot be read, or there is none."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return b""
    try:
        return next((value for operation, _, _, value, _ in records(file) if operation == ABOUT), b"")
    finally:
        os.close(file)


def open_file(folder: int, name: str, more: int = 0) -> int:
    """Open a file of the folder, or make it; return its descriptor."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | more
    return os.open(name, flags, 0o600, dir_fd=folder)


def record_of(operation: int, revision: int, key: str, value: bytes) -> bytes:
    """Return a record as it stands in the file."""
    key_bytes = key.encode()
    body = _RECORD.pack(0, revision, operation, len(key_bytes), len(value))[4:] + key_bytes + value
    return zlib.crc32(body).to_bytes(4, "big") + body


def write(file: int, data: bytes, at: int) -> int:
    """Write all of it at a place; return how much that was."""
    written = 0
    while written < len(data):
        written += os.pwrite(file, memoryview(data)[written:], at + written)
    return written


def records(file: int) -> Iterator[tuple[int, int, str, bytes, int]]:
    """Yield operation, revision, key, value and where the value begins, of every record that is whole."""
    at, kept = 0, b""
    while True:
        chunk = os.pread(file, _READ, at + len(kept))
        kept += chunk
        read = 0
        while len(kept) - read >= _RECORD.size:
            crc, revision, operation, key_size, value_size = _RECORD.unpack_from(kept, read)
            size = _RECORD.size + key_size + value_size
            if value_size > _LONGEST:
                return
            if len(kept) - read < size:
                break
            body = kept[read + 4 : read + size]
            if zlib.crc32(body) != crc:
                return
            value_at = _RECORD.size - 4 + key_size
            key = body[_RECORD.size - 4 : value_at].decode()
            yield operation, revision, key, body[value_at:], at + read + 4 + value_at
            read += size
        at, kept = at + read, kept[read:]
        if not chunk:
            return
