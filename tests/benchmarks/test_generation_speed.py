import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import generation_speed
from benchmarks.sides import Side
from tests.helpers.trained_runs import make_run


def test_both_sides_write_the_same_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = make_run(tmp_path, **{"model.attention_scale_dim": 4}).path
    options = [f"--workdir={run}", "--tasks=proc1_test,proc2_test", "--limit=7", "--batches=4,8", "--repeats=2"]
    assert generation_speed.main(options) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["answers_agree"]
    assert report["examples"] == 14
    assert report["equal_answers"] + len(report["parting_gaps"]) == 14
    assert report["equal_answers"] >= 13
    assert set(report["seconds_by_batch"]["peer"]) == {"4", "8"}
    assert report["ratio"]["peer"]["lowest"] <= report["ratio"]["peer"]["median"]
    assert report["tokens_per_second"]["ours"]["median"] > report["examples_per_second"]["ours"]["median"]


class Recorder(Side):
    """In the place of the peer's process, which is not started: keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: tuple[str, dict[str, Any]] | None = None

    def ask(self, question: str, **arguments: Any) -> list[float]:
        self.asked = question, arguments
        return [0.25]


def test_answers_are_judged_where_they_part() -> None:
    peer = Recorder()
    gaps = generation_speed.parting_gaps(peer, [[4, 5], [6, 7]], [[4, 5], [6]], eos_id=1)
    assert peer.asked == ("gaps", {"prefixes": [(1, [6])], "tokens": [(7, 1)]})
    answers = {"ours": [[4, 5], [6, 7]], "peer": [[4, 5], [6]]}
    assert generation_speed.agreement(answers, gaps, 0.3) == {
        "equal_answers": 1,
        "parting_gaps": [0.25],
        "answers_agree": True,
    }
    assert not generation_speed.agreement(answers, gaps, 0.2)["answers_agree"]
