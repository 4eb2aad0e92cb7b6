import json

import pytest

from benchmarks import target_logits_speed

TINY = {
    "model.preset": "llama",
    "model.layers": 1,
    "model.model_dim": 16,
    "model.heads": 2,
    "model.kv_heads": 2,
    "model.head_dim": 8,
    "model.attention_scale_dim": 8,
    "model.mlp_dim": 32,
    "model.vocabulary_size": 50,
}


def test_both_kinds_of_step_have_the_same_losses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(target_logits_speed.SIZES, "tiny", TINY)
    assert target_logits_speed.main(["--sizes", "tiny", "--steps", "2", "--rows", "2", "--length", "24"]) == 0
    found = json.loads(capsys.readouterr().out)["tiny"]
    assert (found["positions"], found["targets"]) == (48, 2 * 3 * 3)
    assert 0 <= found["loss_difference"] < 1e-5
    assert found["times_as_fast"] == pytest.approx(found["seconds_all"] / found["seconds_targets"], rel=0.5)
