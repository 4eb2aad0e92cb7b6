"""The model section of a config."""

from pathlib import Path

import pytest

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.config.run import load_config, read_run_config
from tests.helpers.paths import QUICKSTART


def test_runs_from_before_longrope_and_ministral_go_on(tmp_path: Path) -> None:
    config = load_config(QUICKSTART, {})
    values = config.model_dump(mode="json")
    for name in ("rotated_share", "short_factors", "long_factors", "attention_factor", "query_growth"):
        del values["model"]["rope"][name]
    del values["model"]["first_global_layer"]
    files.write_json(tmp_path / "config.json", values)
    assert read_run_config(tmp_path / "config.json", "workdir") == config


def test_the_first_global_layer_is_one_of_the_first_interval() -> None:
    load_config(QUICKSTART, {"model.global_layer_interval": 2, "model.first_global_layer": 1})
    with pytest.raises(UserError, match=r"first_global_layer = 3 must be at most global_layer_interval = 2"):
        load_config(QUICKSTART, {"model.global_layer_interval": 2, "model.first_global_layer": 3})


def test_rows_end_where_positions_would_be_stretched_dynamically() -> None:
    length = load_config(QUICKSTART, {}).data.length
    fields = {"model.rope.scaling": "dynamic", "model.rope.factor": 2.0}
    load_config(QUICKSTART, fields | {"model.rope.original_length": length})
    with pytest.raises(UserError, match=f"data.length = {length} is more than the {length - 1} positions"):
        load_config(QUICKSTART, fields | {"model.rope.original_length": length - 1})
