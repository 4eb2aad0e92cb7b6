"""Builds chains from single instructions: a dataset folder, and beside it a work folder with the report.

The key stands in the environment alone: OPENAI_API_KEY, with COI_LLM_MODEL and OPENAI_BASE_URL where the config leaves
them open. Run again to go on: what was answered is never paid again. Flags that are not known here are Beam's.
Example: python -m data_pipeline.build --config configs/build/super_ni.py --out data/built --budget 5
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coi_jax import cli, config_files, files
from coi_jax.errors import UserError
from data_pipeline.build import decisions, sources
from data_pipeline.build.config import BuildConfig
from data_pipeline.build.pipeline import Build, Built, Payment
from data_pipeline.build.questions import QUESTIONS, prompt_identity
from data_pipeline.build.stages import Incomplete, Workshop
from data_pipeline.build.writing import write

RUNNER = "--runner=FnApiRunner"  # the DirectRunner's engine in this process; its other one would be downloaded


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    arguments, beam_flags = _parser().parse_known_args(rest)
    config = load(arguments.config, overrides)
    work = arguments.work or f"{arguments.out}.work"
    workshop = Workshop(f"{work}/stages", beam_flags or [RUNNER])
    found = decisions.read(Path(arguments.decisions or f"{work}/decisions.jsonl"))
    build = Build(config, workshop, Payment(f"{work}/spending", arguments.budget), found)
    try:
        built = build.run()
    except Incomplete as stop:
        raise _stopped(stop, arguments.budget) from None
    counts = write(arguments.out, config, built.selected, built.fused, built.every, notes(config, built))
    print(counts)
    return 0


def _parser() -> cli.Parser:
    parser = cli.parser(__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="see configs/build/")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="dataset folder to write")
    parser.add_argument("--work", metavar="DIR", help="stages, spending, report; None: OUT.work; may be gs://…")
    parser.add_argument("--decisions", metavar="FILE", help="of people; None: decisions.jsonl in the work folder")
    parser.add_argument("--budget", type=float, metavar="USD", help="stop before more is spent; None: no limit")
    return parser


def load(path: str, overrides: dict[str, Any]) -> BuildConfig:
    """The config of a file with overrides, and with what the environment says of endpoints.

    Raises:
      UserError: a field is wrong, or no model is named.
    """
    values = config_files.read(path)
    config_files.override(values, overrides)
    config = config_files.validate(BuildConfig, values)
    if config.llm == "procedural":
        return config
    opinion = config.opinion
    if opinion.enabled:
        opinion = opinion.model_copy(update={"endpoint": opinion.endpoint.resolved()})
    return config.model_copy(update={"endpoint": config.endpoint.resolved(), "opinion": opinion})


def _stopped(stop: Incomplete, budget: float | None) -> UserError:
    if stop.out_of_budget:
        mend = f"reached at stage {stop.stage}; what was answered is kept: raise it and run the same command again"
        return UserError("budget", budget, mend)
    (reason, count), *_ = sorted(stop.reasons.items(), key=lambda item: -item[1])
    number = sum(stop.reasons.values())
    return UserError(f"stage {stop.stage}", f"{number} questions without an answer",
                     f"{count} of them: {reason}; what was answered is kept: run the same command again")  # fmt: skip


def notes(config: BuildConfig, built: Built) -> dict[str, Any]:
    """What the manifest says of a build: all that its chains follow from."""
    seeds = list(built.tasks.read())
    return {
        "licences": [seed["licence"] for seed in seeds],
        "config": config.model_dump(mode="json", exclude={"store"}),
        "sources": [Path(path).name for source in config.seeds.sources for path in sources.paths(source)],
        "prompts": {kind.prompt: prompt_identity(kind.prompt) for kind in QUESTIONS},
        "stages": {stage.name: stage.counts for stage in built.every},
        "identity": files.digest([stage.identity for stage in built.every]),
    }


if __name__ == "__main__":
    sys.exit(cli.run(main))
