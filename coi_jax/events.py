"""TensorBoard event files of scalars, written without TensorFlow.

A file is a sequence of records (length, its checksum, bytes, their checksum: TensorFlow's TFRecord format), each an
`Event` message of tensorflow/core/util/event.proto, of which four fields are needed here. Every write is handed to the
operating system at once, so that a full disk is an OSError where it happens.
"""

import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

VERSION = "brain.Event:2"  # what readers look for in the first event
_SESSION_START = 1
_CASTAGNOLI = 0x82F63B78  # CRC-32C, bits reversed


class EventFile:
    """A new event file in a folder; TensorBoard reads all files of a folder as one run."""

    def __init__(self, folder: Path, *, start: int) -> None:
        """Begins a file for steps after `start`; TensorBoard then forgets what older files say of them."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 1_000_000_000}.{socket.gethostname()}.{time.time_ns()}"
        self._file = open(folder / name, "xb", buffering=0)
        self._event(0, _field(3, VERSION.encode()))
        self._event(start + 1, _field(7, _varint_field(1, _SESSION_START)))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of a step; raises OSError where the disk is full."""
        values = [_field(1, _field(1, tag.encode()) + _float_field(2, value)) for tag, value in scalars.items()]
        self._event(step, _field(5, b"".join(values)))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _event(self, step: int, what: bytes) -> None:
        wall_time = _key(1, 1) + struct.pack("<d", time.time())
        self._file.write(record(wall_time + _varint_field(2, step) + what))


def record(data: bytes) -> bytes:
    """`data` framed as a TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + _masked_checksum(length) + data + _masked_checksum(data)


def _masked_checksum(data: bytes) -> bytes:
    checksum = crc32c(data)
    return struct.pack("<I", (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def crc32c(data: bytes) -> int:
    """The CRC-32C checksum (RFC 3720, appendix B.4)."""
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum = _TABLE[(checksum ^ byte) & 0xFF] ^ (checksum >> 8)
    return checksum ^ 0xFFFFFFFF


def _table_entry(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (_CASTAGNOLI if value & 1 else 0)
    return value


_TABLE = [_table_entry(byte) for byte in range(256)]


def _varint(value: int) -> bytes:
    """Protocol Buffers' encoding of a natural number: seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint_field(number: int, value: int) -> bytes:
    return _key(number, 0) + _varint(value)


def _float_field(number: int, value: float) -> bytes:
    return _key(number, 5) + struct.pack("<f", value)


def _field(number: int, data: bytes) -> bytes:
    return _key(number, 2) + _varint(len(data)) + data
