"""The model section of a config."""

from pathlib import Path

from coi_jax.common import files
from coi_jax.config.run import load_config, read_run_config
from tests.helpers.paths import QUICKSTART


def test_runs_from_before_longrope_go_on(tmp_path: Path) -> None:
    config = load_config(QUICKSTART, {})
    values = config.model_dump(mode="json")
    for name in ("rotated_share", "short_factors", "long_factors"):
        del values["model"]["rope"][name]
    files.write_json(tmp_path / "config.json", values)
    assert read_run_config(tmp_path / "config.json", "workdir") == config
