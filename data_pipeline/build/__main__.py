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

from coi_jax.chains.dataset import check_replaceable, read_manifest
from coi_jax.common import cli
from coi_jax.common.errors import UserError, nearest
from coi_jax.common.storage import PathLike
from coi_jax.llm.budget import Budget, Prices
from data_pipeline.build import decisions, forecast
from data_pipeline.build.config_loading import load, parse_source
from data_pipeline.build.engine.stage_runner import StageRunner, beam_flag_names
from data_pipeline.build.pipeline import Build, Payment
from data_pipeline.build.review import chain_outcomes
from data_pipeline.build.review.build_report import write_report
from data_pipeline.build.run_modes import run_directly, run_in_batches
from data_pipeline.build.writing import SOURCE, manifest_notes, write
from data_pipeline.text_tables import text_table

RUNNER = "--runner=FnApiRunner"  # the DirectRunner's engine in this process; its other one would be downloaded


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    arguments, beam_flags = _parser().parse_known_args(rest)
    if arguments.llm:
        overrides["llm"] = arguments.llm
    if arguments.source:
        overrides["seeds.sources"] = tuple(map(parse_source, arguments.source))
    config = load(arguments.config, overrides)
    work = arguments.work or f"{arguments.out}.work"
    runner = StageRunner(f"{work}/stages", [RUNNER, *check_beam_flags(beam_flags)])
    found = decisions.read(arguments.decisions or f"{work}/decisions.jsonl")
    payment = Payment(f"{work}/spending", arguments.budget)
    if arguments.dry_run:
        return _forecast(Build(config, runner, payment, found, offline=True), json_wanted=arguments.json)
    check_replaceable(arguments.out, SOURCE)  # now, and not when all questions have been asked and paid
    if config.llm == "endpoint":
        config.endpoint.key()
    if arguments.batch and config.llm == "endpoint":
        built = run_in_batches(config, runner, payment, found, arguments.poll)
    else:
        built = run_directly(Build(config, runner, payment, found), arguments.budget)
    write(arguments.out, config, built, manifest_notes(config, built))
    chain_outcomes.write(work, built)
    spent = Budget(payment.folder, None, Prices(0.0, 0.0), 1).total()
    write_report(f"{work}/report.html", config, built, spent, found)
    print(summary(arguments.out, work, spent))
    return 0


FLAGS: dict[str, dict[str, Any]] = {
    "--config": {"default": "configs/build/procedural.py", "metavar": "FILE", "help": "see configs/build/"},
    "--out": {"required": True, "metavar": "DIR", "help": "dataset folder to write"},
    "--work": {"metavar": "DIR", "help": "folder of stages, spending and report, local or gs://…; None: OUT.work"},
    "--source": {
        "action": "append",
        "metavar": "KIND:PATH",
        "help": "instead of the config's: super_ni:DIR, alpaca:FILE, dataset:DIR:SPLIT, procedural:NAMES; repeatable",
    },
    "--llm": {"choices": ("endpoint", "procedural"), "help": "what answers questions; None: as the config says"},
    "--budget": {"type": float, "metavar": "USD", "help": "stop before all runs together cost more; None: no limit"},
    "--dry_run": {"action": "store_true", "help": "ask nothing; print the expected calls, tokens and cost"},
    "--json": {"action": "store_true", "help": "with --dry_run: print JSON"},
    "--batch": {"action": "store_true", "help": "ask through the Batch API: cheaper, but within a day"},
    "--poll": {"type": float, "default": 60.0, "metavar": "SECONDS", "help": "pause between polls of a batch"},
    "--decisions": {
        "metavar": "FILE",
        "help": "decisions of data_pipeline.curate; None: WORK/decisions.jsonl",
    },
}


def _parser() -> cli.Parser:
    parser = cli.parser(__doc__)
    for name, settings in FLAGS.items():
        parser.add_argument(name, **settings)
    return parser


def check_beam_flags(beam_flags: Sequence[str]) -> Sequence[str]:
    """Return the flags if Beam knows them all: a misspelt flag of this command must not start a build.

    Raises:
      UserError: one is not known; the nearest is given.
    """
    known = ["--help", *FLAGS, *beam_flag_names()]
    for flag in beam_flags:
        name = flag.partition("=")[0]
        if name.startswith("-") and name.replace("--no_", "--") not in known:
            raise UserError("flag", name, nearest(name, known))
    return beam_flags


def _forecast(build: Build, *, json_wanted: bool) -> int:
    lines = forecast.Forecast(build.config, *build.run_without_asking()).lines()
    print(json.dumps([forecast.row(line) for line in lines], indent=2) if json_wanted else forecast.table(lines))
    return 0


def summary(out: PathLike, work: str, spent: float) -> str:
    """Return a summary of a build, in a few lines.

    Args:
      out: the dataset folder.
      work: the work folder.
      spent: US dollars, of all runs.
    """
    manifest = read_manifest(out)
    counts = manifest["counts"].items()
    lines = text_table(
        ["split", "length", "chains"],
        [[split, length, count] for split, by_length in counts for length, count in by_length.items()],
    )
    lines.append(f"{sum(manifest['rejected'].values()):,} rows rejected, each with its reason in {out}/rejected.jsonl")
    lines.append(f"${spent:.4f} spent on it; the report: {work}/report.html")
    return "\n".join(lines)


def command() -> int:
    """Run the command `coi-build`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
