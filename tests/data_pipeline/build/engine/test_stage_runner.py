import json
import pickle
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions, StandardOptions

from coi_jax.common import files
from coi_jax.common.errors import UserError
from data_pipeline.build.build_job import RUNNER
from data_pipeline.build.engine.stage_runner import MARKER, Options, StageRunner


def test_options_are_those_of_beam_and_views_of_them_are_made_once() -> None:
    flags = [RUNNER, "--streaming"]
    options, beams = Options(flags, save_main_session=False), PipelineOptions(flags, save_main_session=False)
    for view in (StandardOptions, SetupOptions):
        assert options.view_as(view) is options.view_as(view)
        assert options.view_as(view).get_all_options() == beams.view_as(view).get_all_options()
    options.view_as(StandardOptions).streaming = False  # as a runner changes what all see
    assert not options.get_all_options()["streaming"]
    assert pickle.loads(pickle.dumps(options)).get_all_options() == options.get_all_options()


@pytest.mark.parametrize("counts", [[], 1, {"out": "x"}, {"out": -1}])
def test_counts_of_a_stage_that_are_none_are_named(tmp_path: Path, counts: object) -> None:
    identity = files.digest(["seeds", None, []])
    files.write_text(tmp_path / f"seeds-{identity[:12]}" / MARKER, json.dumps(counts))
    with pytest.raises(UserError, match=rf"{MARKER}: holds no counts of rows; remove the stage's folder"):
        StageRunner(str(tmp_path), [RUNNER]).run("seeds", None, [], lambda _: {})
