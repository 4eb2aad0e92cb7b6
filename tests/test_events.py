import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog

from coi_jax.events import VERSION, EventFile, crc32c, record


def read_events(folder: Path) -> list[Event]:
    """The events of a folder's files, with every checksum verified."""
    events = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            payload = data[12 : 12 + size]
            assert data[: size + 16] == record(payload)
            events.append(Event.FromString(payload))
            data = data[size + 16 :]
    return events


def test_the_checksum_is_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of its definition
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


def test_scalars_are_read_back(tmp_path: Path) -> None:
    file = EventFile(tmp_path, start=0)
    file.write(300, {"loss": 2.5, "learning_rate": 0.125})
    file.close()
    version, session, event = read_events(tmp_path)
    assert version.file_version == VERSION
    assert (session.step, session.session_log.status) == (1, SessionLog.START)
    assert event.step == 300
    assert event.wall_time > 1e9
    assert {value.tag: value.simple_value for value in event.summary.value} == {"loss": 2.5, "learning_rate": 0.125}


def test_a_run_that_goes_on_writes_a_file_of_its_own(tmp_path: Path) -> None:
    for start in (0, 7):
        EventFile(tmp_path, start=start).close()
    assert len(list(tmp_path.iterdir())) == 2
    assert {event.step for event in read_events(tmp_path) if event.HasField("session_log")} == {1, 8}
