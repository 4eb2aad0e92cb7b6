"""Prompts: the text of a chain that a model is shown.

A template lays out instruction and input. It is a text of this file, or a conversation, which the model's own tokenizer
lays out (templates "chat" and "mistral"). The paper's prompting baselines (section 4) put worked examples before it:
chain of thought shows answers step by step; least-to-most (Zhou et al. 2023) asks for the steps of the instruction in
a call of its own, and then for the answer, shown the steps. The paper's own prompts are not public; the wording here
is this project's.

To add a prompting baseline, add an entry to `PROMPTINGS` with its calls, and an arm in `coi_jax.data.arms`.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from coi_jax.chains.chain import Chain
from coi_jax.common.errors import UserError
from coi_jax.common.files import digest
from coi_jax.tokenizers.protocol import SupportsChat, Vocabulary

TEMPLATES = {
    "plain": "{instruction}\n{input}\n",
    # The layout that Alpaca models were tuned with (tatsu-lab/stanford_alpaca); an empty input has its own.
    "alpaca": (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
    ),
    "alpaca_no_input": (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Response:"
    ),
}

CHATS = ("chat", "mistral")  # their text is a conversation as JSON: `[{"role": "user", "content": …}, …]`

SHOTS = 7  # the default; paper, section 4: seven-shot chain of thought


@dataclass(frozen=True)
class Stage:
    """One call of a way of prompting that shows worked examples.

    Attributes:
      name: what it is for: "answer", the last one, or what the answer needs, as "decompose".
      instruction: returns the instruction that the model is shown, of a chain and the outputs of the calls before.
      worked_answer: returns the answer that a worked example shows.
      is_usable: returns whether the next call can use an output.
      fallback: what is said of outputs that it cannot use, and done without them.
    """

    name: str
    instruction: Callable[[Chain, Sequence[str]], str]
    worked_answer: Callable[[Chain], str]
    is_usable: Callable[[str], bool] = bool
    fallback: str = "are empty"


def whole_instruction(chain: Chain, outputs: Sequence[str]) -> str:
    """Return the instruction of a chain."""
    return chain.instruction


def answer_step_by_step(chain: Chain) -> str:
    """Return the answer of a worked example: the outputs of the steps."""
    return chain.targets


def ask_for_steps(chain: Chain, outputs: Sequence[str]) -> str:
    """Return the instruction of the first call of least-to-most prompting, which asks for the steps alone."""
    return f"Write the steps of this instruction as a numbered list, without carrying them out: {chain.instruction}"


def list_steps(chain: Chain) -> str:
    r"""Return the instructions of the steps, each in a numbered line. Example: `"1. Sort.\n2. Count."`."""
    return _number([" ".join(step.instruction.split()) for step in chain.steps])


def ask_with_steps(chain: Chain, outputs: Sequence[str]) -> str:
    """Return the instruction of the second call of least-to-most prompting, with the steps that the first one found.

    Where it found none, the whole instruction is the only step.
    """
    steps = read_steps(outputs[0]) or [" ".join(chain.instruction.split())]
    return f"{chain.instruction}\n\nCarry out these steps, one after another:\n{_number(steps)}"


def read_steps(text: str) -> list[str]:
    r"""Return the steps of the first numbered list in a text, as a model writes one; nothing where there is none.

    Text before it is passed over, and it ends before the first line that is not the next step. Blank lines may stand
    between steps. A text of one line, as tokenizers without line breaks give, may hold all steps one after another.
    Example: `"Steps:\n1. Sort.\n2) Count.\n\nNext task"` → `["Sort.", "Count."]`.
    """
    lines = text.strip().splitlines()
    steps: list[str] = []
    for line in filter(str.strip, lines if len(lines) > 1 else _BETWEEN_STEPS.split(text)):
        match = _STEP.fullmatch(line)
        if match and int(match["number"]) == len(steps) + 1:
            steps.append(match["step"])
        elif steps:
            break
    return steps


def has_steps(text: str) -> bool:
    """Return whether a text has a numbered list of steps."""
    return bool(read_steps(text))


def _number(steps: Sequence[str]) -> str:
    return "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


# A line of a numbered list, also with emphasis or the word "step".
_STEP = re.compile(r"[\s*_#>-]*(?:step[ ]?)?(?P<number>[0-9]{1,3})[*_]*[.):][*_]*\s+(?P<step>\S.*?)\s*", re.IGNORECASE)
# White space between the end of a sentence and the number of a step.
_BETWEEN_STEPS = re.compile(r"(?<=[.!?;,:\"')\]])\s+(?=[0-9]{1,3}[.)]\s)")

# The calls of each way of prompting that shows worked examples.
PROMPTINGS: dict[str, tuple[Stage, ...]] = {
    "cot": (Stage("answer", whole_instruction, answer_step_by_step),),
    "ltm": (
        Stage("decompose", ask_for_steps, list_steps, has_steps, "list no steps; the whole instruction is their step"),
        Stage("answer", ask_with_steps, answer_step_by_step),
    ),
}
DIRECT = (Stage("answer", whole_instruction, answer_step_by_step),)  # without examples


def stages_of(prompting: str) -> tuple[Stage, ...]:
    """Return the calls of a way of prompting: "direct", or a name in `PROMPTINGS`."""
    return DIRECT if prompting == "direct" else PROMPTINGS[prompting]


def prompt(instruction: str, input: str, template: str, system: str | None = None) -> str:
    r"""Return the text of an instruction and its input.

    Args:
      instruction: of the whole chain, or of one step.
      input: the text that it is applied to; may be empty.
      template: a name in `TEMPLATES` or `CHATS`.
      system: the system prompt that a conversation begins with, if any.

    Example: `("Sort the words.", "b a", "plain")` → `"Sort the words.\nb a\n"`.
    """
    if template in CHATS:
        return json.dumps([*_system_turns(system), _user_turn(instruction, input)], ensure_ascii=False)
    if template == "alpaca" and not input:
        template = "alpaca_no_input"
    return TEMPLATES[template].format(instruction=instruction, input=input)


def few_shot(
    chain: Chain,
    examples: Sequence[Chain],
    template: str,
    prompting: str,
    system: str | None = None,
    outputs: Sequence[str] = (),
) -> str:
    """Return the prompt of a chain after worked examples. In a conversation the examples are earlier turns.

    Args:
      chain: the one that the model is asked.
      examples: chains with all reference outputs; unused where `prompting` is "direct".
      template: a name in `TEMPLATES` or `CHATS`.
      prompting: "direct", or a name in `PROMPTINGS`.
      system: the system prompt that a conversation begins with, if any.
      outputs: of the calls before this one, where the way of prompting has several.
    """
    if prompting == "direct":
        return prompt(chain.instruction, chain.input, template, system)
    *before, stage = stages_of(prompting)[: len(outputs) + 1]
    last = prompt(stage.instruction(chain, outputs), chain.input, template)
    asked = [stage.instruction(example, [each.worked_answer(example) for each in before]) for example in examples]
    shown = [(text, example.input, stage.worked_answer(example)) for text, example in zip(asked, examples, strict=True)]
    if template in CHATS:
        turns = [turn for example in shown for turn in _example_turns(*example)]
        return json.dumps([*_system_turns(system), *turns, *json.loads(last)], ensure_ascii=False)
    shots = [f"{prompt(instruction, input, template)} {answer}" for instruction, input, answer in shown]
    return "\n\n".join([*shots, last])


def encode_prompt(text: str, template: str, vocabulary: Vocabulary) -> list[int]:
    """Return the ids of a prompt's text, all but the begin id.

    Args:
      text: the result of `prompt` or `few_shot`.
      template: the one that `text` was laid out with.
      vocabulary: turns the text into ids.

    Raises:
      UserError: the template is a conversation, and the vocabulary has no chat template, or it rejects these turns.
    """
    if template not in CHATS:
        ids = vocabulary.encode(text)
    elif isinstance(vocabulary, SupportsChat):
        ids = vocabulary.encode_chat(json.loads(text))
    else:
        raise UserError("config.data.template", template, f"the vocabulary {vocabulary.name} lays out no conversations")
    return [*ids, vocabulary.eos_id] if vocabulary.add_eos_to_inputs else ids


def cut_prompt(chain: Chain, template: str, vocabulary: Vocabulary, system: str | None, room: int) -> list[int] | None:
    """Return the ids of a chain's prompt with its input cut, so that they are at most `room`.

    Whatever the template writes after the input stays. The input keeps its longest beginning that fits, or nearly so:
    a text of one character more may by chance have fewer ids. None where not even its first character fits.

    Args:
      chain: whose whole prompt has more ids.
      template: a name in `TEMPLATES` or `CHATS`.
      vocabulary: turns the text into ids.
      system: the system prompt, if any.
      room: the most ids.
    """

    def ids_of(characters: int) -> list[int]:
        text = prompt(chain.instruction, chain.input[:characters], template, system)
        return encode_prompt(text, template, vocabulary)

    fits, found = 1, ids_of(1)
    if not chain.input or len(found) > room:
        return None
    too_long = len(chain.input)
    while too_long - fits > 1 and len(found) < room:
        middle = (fits + too_long) // 2
        ids = ids_of(middle)
        if len(ids) <= room:
            fits, found = middle, ids
        else:
            too_long = middle
    return found


def _system_turns(system: str | None) -> list[dict[str, str]]:
    return [] if system is None else [{"role": "system", "content": system}]


def _user_turn(instruction: str, input: str) -> dict[str, str]:
    return {"role": "user", "content": f"{instruction}\n\n{input}" if input else instruction}


def _example_turns(instruction: str, input: str, answer: str) -> list[dict[str, str]]:
    return [_user_turn(instruction, input), {"role": "assistant", "content": answer}]


def is_complete(chain: Chain) -> bool:
    """Return whether a chain has the output of every step, so that it can be a worked example."""
    return None not in chain.outputs


def choose_examples(chains: Iterable[Chain], shots: int = SHOTS) -> list[Chain]:
    """Return the worked examples among some chains: the first by the hash of their ids, whatever the chains' order."""
    return sorted(filter(is_complete, chains), key=lambda chain: digest(chain.id))[:shots]
