"""The oracle: computes outputs from instructions alone, and checks chains with it."""

from collections.abc import Sequence

from coi_jax.chains.chain import Chain
from coi_jax.common.arguments import checked
from coi_jax.common.errors import UserError
from data_pipeline.procedural.catalogue import understand


@checked
def execute(instruction: str, text: str) -> str | None:
    """Return the right output for one instruction and its input.

    None where no operation is asked for in these words, the input is not of its type, or the operation makes no sense
    for it.
    """
    understood = understand(instruction)
    if understood is None:
        return None
    operation, arguments = understood
    try:
        result = operation.apply(operation.source.read(text), arguments)
    except (ValueError, OverflowError):
        return None
    return None if result is None else operation.result.text(result)


@checked
def follow(instructions: Sequence[str], text: str, outputs: Sequence[str | None]) -> list[bool]:
    """Return for each step whether its output is right given the output before it, right or wrong.

    With a model's outputs this separates its own mistakes from those that it inherited.

    Args:
      instructions: of the steps.
      text: the input of the first step.
      outputs: of the steps; None is never right.

    Raises:
      UserError: there are not as many outputs as instructions.
    """
    if len(instructions) != len(outputs):
        raise UserError("outputs", outputs, f"give one for each of the {len(instructions)} instructions")
    before = [text, *outputs][: len(instructions)]
    return [
        given is not None and output is not None and execute(instruction, given) == output
        for instruction, given, output in zip(instructions, before, outputs, strict=True)
    ]


@checked
def verify(chain: Chain) -> list[bool]:
    """Return for each step whether its output and its task are what its instruction asks of the output before it."""
    instructions = [step.instruction for step in chain.steps]
    right = follow(instructions, chain.input, chain.outputs)
    return [ok and _asks_for(step.instruction, step.task) for ok, step in zip(right, chain.steps, strict=True)]


def _asks_for(instruction: str, task: str | None) -> bool:
    understood = understand(instruction)
    return understood is not None and understood[0].name == task
