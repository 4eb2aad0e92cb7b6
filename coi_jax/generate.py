"""Answer one instruction with a trained run, step by step.

python -m coi_jax.generate --workdir runs/coi12 --instruction "Sort the words. and then Count them." --input "b a"
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from coi_jax.chains.chain import JOINER, is_well_formed, parse
from coi_jax.common import cli
from coi_jax.common.errors import UserError
from coi_jax.data import prompts
from coi_jax.data.arms import find_arm
from coi_jax.inference.model import Model, load_model
from coi_jax.parallel import processes
from coi_jax.parallel.processes import start_jax


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    rest, overrides = cli.split_overrides(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(rest)
    if not arguments.instruction.strip():
        raise UserError("instruction", arguments.instruction, "is empty; say what to do")
    start_jax()
    model = load_model(arguments.workdir, overrides | {"evaluation.batch": 1})
    found = generate(model, arguments.instruction, arguments.input)
    processes.print_primary(json.dumps(found, ensure_ascii=False) if arguments.json else describe(found))
    return 0


def _parser() -> cli.Parser:
    parser = cli.parser(__doc__)
    parser.add_argument("--workdir", required=True, help="run folder, of python -m coi_jax.train")
    parser.add_argument("--instruction", required=True, help='one instruction, or several joined with " and then "')
    parser.add_argument("--input", default="", help="what the first instruction is applied to")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parser


def generate(model: Model, instruction: str, input: str) -> dict[str, Any]:
    """Return the answer to one instruction: its text, its steps, and whether they are as many as the instruction has.

    Args:
      model: the model that answers.
      instruction: one instruction, or several joined with " and then ".
      input: the text that the first instruction is applied to.

    Raises:
      UserError: the run is prompted with worked examples, which only an evaluation has.
    """
    if find_arm(model.config.arm).prompting != "direct":
        hint = "is prompted with examples of a dataset; name the run whose network it prompts (its --source)"
        raise UserError("config.arm", model.config.arm, hint)
    text = prompts.prompt(instruction, input, model.config.data.template)
    ids = prompts.encode_prompt(text, model.config.data.template, model.vocabulary)
    prompt = model.prompt("", np.array(ids, np.int32))
    [answer] = model.answers([prompt])
    written = model.vocabulary.decode(answer.tokens)
    parts = instruction.split(JOINER)
    return {
        "instruction": instruction,
        "input": input,
        "steps": [{"instruction": _at(parts, k), "output": output} for k, output in enumerate(parse(written))],
        "text": written,
        "complete": answer.complete,
        "well_formed": is_well_formed(written, len(parts)),
        "longer_than_trained": model.is_longer_than_trained(prompt),
        "checkpoint": model.checkpoint,
    }


def _at(parts: Sequence[str], index: int) -> str | None:
    """Return the instruction of a step; None where the answer has more steps than the instruction."""
    return parts[index] if index < len(parts) else None


def describe(found: dict[str, Any]) -> str:
    """Return the answer for people: each step's instruction above its output, then notes on what is wrong."""
    lines = []
    for k, step in enumerate(found["steps"], 1):
        lines += [f"{k}. {step['instruction'] or '(a step that was not asked for)'}", f"   {step['output']}"]
    if not found["well_formed"]:
        lines.append("note: the answer does not have the labels of exactly the steps asked for")
    if not found["complete"]:
        lines.append("note: the answer stopped at the limit; raise --config.evaluation.max_new_tokens")
    if found["longer_than_trained"]:
        lines.append("note: the prompt is longer than any that the model was trained on; it was shown whole")
    return "\n".join(lines)


def command() -> int:
    """Run the command `coi-generate`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
