import json
from pathlib import Path

import pytest

from benchmarks import loader_speed
from tests.helpers.paths import QUICKSTART
from tests.helpers.token_caches import small_config, write_caches, write_dataset


def test_it_prints_both_modes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "data", {1: 30, 2: 20})
    write_caches(small_config(tmp_path))
    arguments = [
        f"--config.data.folder={tmp_path / 'data'}",
        f"--config.data.cache_folder={tmp_path / 'caches'}",
        "--config.arm=coi12",
        "--config.vocabulary.kind=bytes",
    ]
    assert loader_speed.main([f"--config={QUICKSTART}", "--seconds=0.2", "--examples=8", "--rows=4", *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    for mode in ("tokens", "examples"):
        assert report[mode]["examples_per_second"] > 0
        assert 0 < report[mode]["packing_efficiency"] <= 1
