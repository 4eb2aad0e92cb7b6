import pickle

from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions, StandardOptions

from data_pipeline.build.build_job import RUNNER
from data_pipeline.build.engine.stage_runner import Options


def test_options_are_those_of_beam_and_views_of_them_are_made_once() -> None:
    flags = [RUNNER, "--streaming"]
    options, beams = Options(flags, save_main_session=False), PipelineOptions(flags, save_main_session=False)
    for view in (StandardOptions, SetupOptions):
        assert options.view_as(view) is options.view_as(view)
        assert options.view_as(view).get_all_options() == beams.view_as(view).get_all_options()
    options.view_as(StandardOptions).streaming = False  # as a runner changes what all see
    assert not options.get_all_options()["streaming"]
    assert pickle.loads(pickle.dumps(options)).get_all_options() == options.get_all_options()
