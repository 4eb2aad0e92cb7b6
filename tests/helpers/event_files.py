"""TensorBoard's event files, read without TensorFlow, which TensorBoard itself would load."""

import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog

HEAD, FOOT = 12, 4  # bytes around a record: its length and a checksum, a checksum


def read_events(folder: Path) -> list[Event]:
    """The events of a folder's files; a record that a kill cut short ends its file."""
    events = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while len(data) >= HEAD:
            (size,) = struct.unpack("<Q", data[:8])
            if len(data) < HEAD + size + FOOT:
                break
            events.append(Event.FromString(data[HEAD : HEAD + size]))
            data = data[HEAD + size + FOOT :]
    return events


def shown_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows: a session that starts at a step hides what earlier ones wrote from there on."""
    shown: dict[str, dict[int, float]] = {}
    for event in read_events(folder):
        if event.HasField("session_log") and event.session_log.status == SessionLog.START:
            shown = {tag: {k: v for k, v in values.items() if k < event.step} for tag, values in shown.items()}
        for value in event.summary.value:
            shown.setdefault(value.tag, {})[event.step] = value.simple_value
    return shown
