import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import training_comparison, training_speed
from benchmarks.training_side_peer import IGNORED, block_diagonal, unpack
from coi_jax.common.errors import UserError
from coi_jax.config.run import load_config
from coi_jax.data.task_specs import training_tasks
from tests.helpers.paths import QUICKSTART
from tests.helpers.tiny_models import DECODER
from tests.helpers.token_caches import small_config, write_caches, write_dataset

OVERRIDES = {f"model.{name}": value for name, value in DECODER.items()} | {
    "arm": "coi123",
    "model.attention_scale_dim": 4,
    "model.scan_unroll": 2,
    "data.batch.rows": 4,
    "data.length": 128,
    "data.overlong": "cut_targets",
    "optimizer.learning_rate": 1e-3,
}


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line for a small dataset; the children have a device and a thread each."""
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_dataset(tmp_path / "data", {2: 40, 3: 30})
    config = small_config(tmp_path, **{name.replace(".", "__"): value for name, value in OVERRIDES.items()})
    write_caches(config, [task for task in training_tasks(config) if task.length in training_speed.CHAINS])
    overrides = OVERRIDES | {
        "data.cache_folder": config.data.cache_folder,
        "vocabulary.kind": "bytes",
    }
    given = [f"--config.{name}={value}" for name, value in overrides.items()]
    return [f"--config={QUICKSTART}", f"--data={tmp_path / 'data'}", "--repeats=2", *given]


def test_both_recipes_of_the_peer_have_the_losses_of_this_trainer(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert training_speed.main(options) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["losses_agree"]
    losses = np.array([report["losses"][name] for name in ("ours", "peer_packed", "peer_padded")])
    assert losses.shape == (3, 3)
    assert (losses[:, 0] > losses[:, 2]).all()  # they have all learnt something
    for name in ("peer_packed", "peer_padded"):
        assert report["ratio"][name]["lowest"] <= report["ratio"][name]["median"] <= report["ratio"][name]["highest"]
        assert set(report["seconds_by_attention"][name]) == set(training_comparison.ATTENTIONS)
    assert 0 < report["useful_share_when_padded"] < 1
    assert min(report["peak_bytes"].values()) > 10 * 2**20
    assert set(report["seconds_over_products"]) == set(report["peak_bytes"]) == set(report["losses"])
    assert report["products"]["seconds"]["lowest"] > 0
    assert {"processor", "cores", "packages"} <= set(report)


def test_speeds_count_the_same_tokens_for_all() -> None:
    counts = [{"examples": 1, "tokens": 9, "target_tokens": 3}, {"examples": 2, "tokens": 100, "target_tokens": 40}]
    taken = {
        name: [{"seconds": 50.0, "losses": [2.0]}, {"seconds": seconds, "losses": [loss]}]
        for name, seconds, loss in (("ours", 2.0, 1.5), ("peer", 5.0, 1.6))
    }
    report = training_comparison.summarise(taken, counts, tolerance=1e-4)
    assert report["tokens_per_second"]["ours"]["median"] == 50
    assert report["target_tokens_per_second"]["peer"]["median"] == 8
    assert report["ratio"] == {"peer": {"median": 2.5, "lowest": 2.5, "highest": 2.5}}
    assert not report["losses_agree"]
    assert report["largest_loss_difference"] == pytest.approx(0.1)


def test_adapters_are_trained_on_a_base_in_the_precision_of_the_peer() -> None:
    config = load_config(str(QUICKSTART), training_speed.fixed("data", rank=3))
    assert config.lora is not None
    assert (config.lora.rank, config.lora.base_dtype, config.lora.dropout) == (3, "float32", 0.0)
    assert load_config(str(QUICKSTART), training_speed.fixed("data", rank=None)).lora is None


@pytest.mark.parametrize(
    ("python", "rank", "changes", "field"),
    [
        ("/nowhere/python", None, {}, "tunix"),
        (sys.executable, 4, {}, "lora"),
        (sys.executable, None, {"optimizer.name": "adafactor", "optimizer.options": {}}, "config.optimizer.name"),
        (sys.executable, None, {"model.rope.theta": 1e4}, "config.model.rope.theta"),
    ],
)
def test_what_tunix_cannot_do_is_said_before_anything_is_measured(
    python: str, rank: int | None, changes: dict[str, Any], field: str
) -> None:
    config = load_config(str(QUICKSTART), training_speed.fixed("data", rank) | changes)
    with pytest.raises(UserError) as error:
        training_speed.check_tunix(config, python)
    assert error.value.field == field


def test_tunix_can_do_what_the_command_measures() -> None:
    training_speed.check_tunix(load_config(str(QUICKSTART), training_speed.fixed("data", None)), sys.executable)


def test_unpacking_gives_every_example_back() -> None:
    batch = {
        "tokens": [[5, 6, 7, 8, 9, 0]],
        "targets": [[6, 7, 1, 9, 2, 0]],
        "weights": [[0, 1, 1, 1, 1, 0]],
        "segments": [[1, 1, 1, 2, 2, 0]],
    }
    examples = unpack({name: np.array(rows) for name, rows in batch.items()})
    assert [(ids.tolist(), labels.tolist()) for ids, labels in examples] == [
        ([5, 6, 7, 1], [IGNORED, IGNORED, 7, 1]),
        ([8, 9, 2], [IGNORED, 9, 2]),
    ]


def test_the_mask_shows_a_position_its_own_example_up_to_itself() -> None:
    import torch

    mask: Any = block_diagonal(torch.tensor([[1, 1, 2, 2]]), torch.float32)
    assert (mask[0, 0] == 0).tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, True, True],
    ]
