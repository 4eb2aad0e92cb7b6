"""Builds chains from single instructions: a dataset folder, and beside it a work folder with the report.

The endpoint's key is read from the environment only: OPENAI_API_KEY, with COI_LLM_MODEL and OPENAI_BASE_URL where the
config leaves them open. Run the same command again to resume: no reply is ever paid for twice. Other flags are passed
to Beam, as --runner=DataflowRunner.

  python -m data_pipeline.build --out data/built   (computed chains; needs no endpoint)
  python -m data_pipeline.build --config configs/build/super_ni.py --source super_ni:DIR --out data/built --dry_run
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from coi_jax.common import cli
from coi_jax.common.folder_lock import folder_lock


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    arguments, beam_flags = _parser().parse_known_args(rest)
    # Imported once the command line is right, so that --help needs no Beam.
    from data_pipeline.build import forecast
    from data_pipeline.build.build_job import BuildJob
    from data_pipeline.build.config_loading import load, parse_sources
    from data_pipeline.build.engine.stage_runner import check_beam_flags, check_work_folder

    check_beam_flags(beam_flags, own=list(FLAGS))
    cli.set_field(overrides, "llm", "--llm", arguments.llm)
    if arguments.source or arguments.columns is not None:
        sources = parse_sources(arguments.source or (), arguments.columns)
        cli.set_field(overrides, "seeds.sources", "--source", sources)
    config = load(arguments.config, overrides, needs_model=not arguments.dry_run)
    work = arguments.work or f"{arguments.out}.work"
    check_work_folder(work)
    with folder_lock(work, "work" if arguments.work else "out"):
        job = BuildJob(
            config, arguments.out, work, arguments.decisions, arguments.budget, beam_flags, arguments.overwrite
        )
        if arguments.dry_run:
            rows = job.forecast()
            print(json.dumps(list(map(forecast.row, rows)), indent=2) if arguments.json else forecast.table(rows))
        else:
            print(job.run(poll_seconds=arguments.poll if arguments.batch else None))
    return 0


FLAGS: dict[str, dict[str, Any]] = {
    "--config": {"default": "configs/build/procedural.py", "metavar": "FILE", "help": "a file of configs/build/"},
    "--out": {"required": True, "metavar": "DIR", "help": "dataset folder to write"},
    "--overwrite": {"action": "store_true", "help": "replace a dataset of another config"},
    "--work": {"metavar": "DIR", "help": "folder of stages, spending and report, where Beam writes; else OUT.work"},
    "--source": {
        "action": "append",
        "metavar": "KIND:PATH",
        "help": "instead of the config's: super_ni:DIR, rows:PATH, dataset:DIR:SPLIT, procedural:NAMES; repeatable",
    },
    "--columns": {
        "metavar": "NAMES",
        "help": "of rows, where their layout is not recognized: instruction=NAME,input=NAME,output=NAME",
    },
    "--llm": {"choices": ("endpoint", "procedural"), "help": "what answers questions, instead of the config's"},
    "--budget": {"type": cli.number, "metavar": "USD", "help": "stop before all runs together cost more"},
    "--dry_run": {"action": "store_true", "help": "ask nothing; print the expected calls, tokens and cost"},
    "--json": {"action": "store_true", "help": "with --dry_run: print JSON"},
    "--batch": {"action": "store_true", "help": "ask through the Batch API: cheaper, but within a day"},
    "--poll": {"type": cli.number, "default": 60.0, "metavar": "SECONDS", "help": "pause between polls of a batch"},
    "--decisions": {
        "metavar": "FILE",
        "help": "decisions of data_pipeline.curate; without it WORK/decisions.jsonl",
    },
}


def _parser() -> cli.Parser:
    parser = cli.parser(__doc__)
    for name, settings in FLAGS.items():
        parser.add_argument(name, **settings)
    return parser


def command() -> int:
    """Run the command `coi-build`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
