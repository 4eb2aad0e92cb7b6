"""Answer one instruction with a trained run, step by step.

  python -m coi_jax.generate --workdir runs/coi12 --instruction "Sort the words. and then Count them." --input "b a"

With --config.arm=cot or ltm the network of the run is prompted as that baseline is in an evaluation.
"""

import json
import sys
from collections.abc import Sequence

from coi_jax.chains.chain import JOINER
from coi_jax.common import cli
from coi_jax.common.errors import UserError
from coi_jax.common.json_reader import is_utf8
from coi_jax.runs.early_checks import check_run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(rest)
    check_text(arguments.instruction, arguments.input)
    cli.set_field(overrides, "evaluation.demonstrations", "--demonstrations", arguments.demonstrations)
    cli.set_field(overrides, "evaluation.shots", "--shots", arguments.shots)
    if not arguments.config:
        check_run(arguments.workdir)
    # Imported once the command line is right, so that --help and mistakes need no JAX.
    from coi_jax.inference.answering import describe, generate
    from coi_jax.inference.model import init_untrained_run, load_to_ask
    from coi_jax.parallel import processes

    processes.start_jax()
    if arguments.config:
        init_untrained_run(arguments.workdir, arguments.config, overrides)
        overrides = {name: value for name, value in overrides.items() if name.startswith("evaluation.")}
    model = load_to_ask(arguments.workdir, overrides | {"evaluation.batch": 1})
    found = generate(model, arguments.instruction, arguments.input)
    processes.print_primary(json.dumps(found, ensure_ascii=False) if arguments.json else describe(found))
    return 0


def check_text(instruction: str, input: str) -> None:
    """Raise UserError where a step has no instruction, or where a text is not Unicode."""
    if not all(part.strip() for part in instruction.split(JOINER)):
        raise UserError("instruction", instruction, "a step is empty; say what to do")
    for field, text in (("instruction", instruction), ("input", input)):
        if not is_utf8(text):
            raise UserError(field, text, "is not UTF-8; convert it")


def _parser() -> cli.Parser:
    parser = cli.parser(__doc__)
    parser.add_argument("--workdir", required=True, help="run folder, of python -m coi_jax.train")
    parser.add_argument("--instruction", required=True, help='one instruction, or several joined with " and then "')
    parser.add_argument("--input", default="", help="what the first instruction is applied to")
    parser.add_argument("--config", default="", help="begins a run of published weights as they are: arm base, no step")
    parser.add_argument("--shots", type=cli.integer, help="worked examples of arms cot and ltm; else the config's")
    parser.add_argument("--demonstrations", default="", help="file of chains that are the worked examples, JSON lines")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parser


def command() -> int:
    """Run the command `coi-generate`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
