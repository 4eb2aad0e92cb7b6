import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu
from coi_jax.common.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first part writes the weights, and the others find them."""
    return tmp_path_factory.mktemp("weights")


def measure(part: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> dict[str, Any]:
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert gpu.main([f"--part={part}", "--preset=tiny", f"--folder={folder}", "--repeats=1"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("part", ["full", "lora"])
def test_training_has_the_losses_of_the_peer(
    part: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = measure(part, folder, monkeypatch, capsys)
    assert report["peer_missing"] == ""
    assert report["first_losses_agree"]
    assert report["largest_loss_difference"] < 1e-3  # Adafactor takes a stack of layers for one parameter here
    assert set(report["way"]) == set(report["mfu"]) == set(report["losses"]) == {"ours", "peer"}
    assert report["ratio"]["peer"]["median"] == pytest.approx(
        report["mfu"]["ours"]["median"] / report["mfu"]["peer"]["median"], rel=0.05
    )


def test_decoding_writes_the_tokens_of_the_peer(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = measure("decode", folder, monkeypatch, capsys)
    assert report["answers_agree"]
    assert report["answers_at_limit"] == report["examples"] == gpu.SIZES["tiny"]["prompts"]


def test_a_side_takes_the_first_way_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "greedy_side.py").write_text(GREEDY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ways = {
        str(bytes): {"folder": str(tmp_path), "bytes": bytes, "config": {"data": {"batch": {"rows": 4}}}}
        for bytes in (9, 5)
    }
    run = gpu.first_that_fits("greedy_side", ways, repeats=2)
    expected: tuple[str, list[Any], dict[str, Any]] = ("5", [0, 1, 2], {"device": "none"})
    assert (run.way, run.steps, run.device) == expected
    with pytest.raises(UserError, match="take fewer"):
        gpu.first_that_fits("greedy_side", {"9": ways["9"]}, repeats=2)


GREEDY = """
from benchmarks import sides

class Greedy:
    def __init__(self, settings):
        if settings["bytes"] > 8:
            raise MemoryError("RESOURCE_EXHAUSTED: no room")

    def steps(self, first, count):
        return first

    def device(self):
        return {"device": "none"}

sides.serve(Greedy)
"""


def test_synthetic_rows_are_nearly_full() -> None:
    size = gpu.SIZES["tiny"]
    config = gpu.run_config(size, "full", {})
    batches = gpu.synthetic_batches(config, 3)
    assert len(batches) == 3
    for batch in batches:
        assert batch["tokens"].shape == (size["rows"], size["length"])
        assert (batch["segments"] > 0).mean() > 0.95
        assert 0.2 < batch["weights"].sum() / (batch["segments"] > 0).sum() < 0.5
    assert not np.array_equal(batches[0]["tokens"], batches[1]["tokens"])


def test_the_preset_must_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="tiny"):
        gpu.main(["--part=full", "--preset=huge"])
