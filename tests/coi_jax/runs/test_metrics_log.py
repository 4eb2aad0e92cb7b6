import errno
import math
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import SessionLog

from coi_jax.common.errors import UserError
from coi_jax.common.storage import AppendFile
from coi_jax.runs.metrics_log import MetricsLog
from coi_jax.runs.metrics_rows import read_metrics
from tests.helpers.event_files import read_events, shown_scalars
from tests.helpers.file_limits import largest_file


def write(folder: Path, start: int, steps: range) -> None:
    log = MetricsLog(folder / "metrics.jsonl", folder / "tensorboard", start=start)
    for step in steps:
        log.write(step, {"loss": step / 2})
    log.close()


def test_both_files_hold_the_same_numbers(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 4))
    rows = read_metrics(tmp_path / "metrics.jsonl")
    events = [event for event in read_events(tmp_path / "tensorboard") if event.summary.value]
    assert rows == [{"step": event.step, "loss": event.summary.value[0].simple_value} for event in events]
    assert rows == [{"step": step, "loss": step / 2} for step in (1, 2, 3)]


def test_what_was_logged_after_the_checkpoint_is_logged_once(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 7))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 7, "lo')  # a kill in the midst of a line
    write(tmp_path, 4, range(5, 9))
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 9))
    starts = [event.step for event in read_events(tmp_path / "tensorboard") if event.HasField("session_log")]
    assert starts == [1, 5]
    assert all(
        event.session_log.status == SessionLog.START
        for event in read_events(tmp_path / "tensorboard")
        if event.HasField("session_log")
    )


@pytest.mark.parametrize("jump", [0, -86_400])
def test_what_is_shown_is_what_was_logged_last_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    now = 1_700_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    write(tmp_path, 0, range(1, 5))
    write(tmp_path, 3, range(4, 14))
    now += jump
    write(tmp_path, 12, range(13, 15))
    assert shown_scalars(tmp_path / "tensorboard") == {"loss": {step: step / 2 for step in range(1, 15)}}


def test_a_full_disk_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    log = MetricsLog.__new__(MetricsLog)
    log._jsonl = AppendFile("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        log.write(1, {"loss": 1.0})
    assert caught.value.errno == errno.ENOSPC


def test_numbers_that_are_not_finite_are_null_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, tmp_path / "tensorboard", start=0)
    log.write(1, {"loss": math.nan, "norm": math.inf, "rate": 0.5})
    log.close()
    MetricsLog(path, tmp_path / "tensorboard", start=1).close()
    assert read_metrics(path) == [{"step": 1, "loss": None, "norm": None, "rate": 0.5}]


@pytest.mark.parametrize("line", ["{}", '{"step": "1"}', '{"step": NaN}', '{"step": 1, "step": 2}', "[" * 5000])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: .*, or remove the line: a run goes on without it"):
        MetricsLog(path, tmp_path / "tensorboard", start=1)


def test_what_was_flushed_is_on_disk_while_the_run_goes_on(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard", start=0)
    log.write(1, {"loss": 0.5})
    log.flush()
    values = [event.step for event in read_events(tmp_path / "tensorboard") if event.summary.value]
    assert values == [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1]
    log.close()


def test_a_curve_for_which_there_is_no_room_is_named(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard", start=0)
    [path] = (tmp_path / "tensorboard").iterdir()
    with largest_file(path.stat().st_size + 1), pytest.raises(OSError, match="File too large") as caught:
        log._events.write(1, {"loss": 1.0})
    assert caught.value.filename == str(path)
