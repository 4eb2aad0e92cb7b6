"""Prompts: the text of a chain that a model is shown.

A template lays out instruction and input. It is a text of this file, or a conversation, which the model's own tokenizer
lays out (templates "chat" and "mistral"). The paper's prompting baselines (section 4) put worked examples before it:
chain of thought shows answers step by step, least-to-most shows the decomposed instruction first. The paper's own
prompts are not public; the wording here is this project's.

To add a prompting baseline, add an entry to `WORKED_ANSWERS` with its function, and an arm in `coi_jax.data.arms`.
"""

import json
from collections.abc import Callable, Iterable, Sequence

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


def decompose_and_answer(chain: Chain) -> str:
    """Return the answer of a least-to-most example: the numbered instructions of the steps, then their outputs."""
    instructions = "".join(f"{k}. {step.instruction}\n" for k, step in enumerate(chain.steps, 1))
    return f"{instructions}{chain.targets}"


def answer_step_by_step(chain: Chain) -> str:
    """Return the answer of a chain-of-thought example: the outputs of the steps."""
    return chain.targets


# The answer that a worked example shows, for each way of prompting that shows examples.
WORKED_ANSWERS: dict[str, Callable[[Chain], str]] = {"cot": answer_step_by_step, "ltm": decompose_and_answer}


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


def few_shot(chain: Chain, examples: Sequence[Chain], template: str, prompting: str, system: str | None = None) -> str:
    """Return the prompt of a chain after worked examples. In a conversation the examples are earlier turns.

    Args:
      chain: the one that the model is asked.
      examples: chains with all reference outputs; unused where `prompting` is "direct".
      template: a name in `TEMPLATES` or `CHATS`.
      prompting: "direct", or a name in `WORKED_ANSWERS`.
      system: the system prompt that a conversation begins with, if any.
    """
    if prompting == "direct":
        return prompt(chain.instruction, chain.input, template, system)
    last = prompt(chain.instruction, chain.input, template)
    answers = [WORKED_ANSWERS[prompting](example) for example in examples]
    if template in CHATS:
        pairs = zip(examples, answers, strict=True)
        turns = [turn for example, answer in pairs for turn in _example_turns(example, answer)]
        return json.dumps([*_system_turns(system), *turns, *json.loads(last)], ensure_ascii=False)
    questions = [prompt(example.instruction, example.input, template) for example in examples]
    shots = [f"{question} {answer}" for question, answer in zip(questions, answers, strict=True)]
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


def _example_turns(example: Chain, answer: str) -> list[dict[str, str]]:
    return [_user_turn(example.instruction, example.input), {"role": "assistant", "content": answer}]


def is_complete(chain: Chain) -> bool:
    """Return whether a chain has the output of every step, so that it can be a worked example."""
    return None not in chain.outputs


def choose_examples(chains: Iterable[Chain], shots: int = SHOTS) -> list[Chain]:
    """Return the worked examples among some chains: the first by the hash of their ids, whatever the chains' order."""
    return sorted(filter(is_complete, chains), key=lambda chain: digest(chain.id))[:shots]
