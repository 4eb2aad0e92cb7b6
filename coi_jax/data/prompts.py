"""How a chain becomes the text that a model is shown.

A template lays out instruction and input: words of this file, or the turns of a conversation, which the model's own
tokenizer puts into words (templates "chat" and "mistral"). The paper's prompting baselines (section 4) put worked
examples before it: chain of thought shows answers step by step, least-to-most shows the instruction taken apart first.
The paper's own prompts are not public; the wording here is this project's.
"""

import json
from collections.abc import Iterable, Sequence

from coi_jax.chains.chain import Chain
from coi_jax.common.errors import UserError
from coi_jax.common.files import digest
from coi_jax.tokenizers.protocol import Converses, Vocabulary

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

SHOTS = 7  # paper, section 4: seven-shot chain of thought


def prompt(instruction: str, input: str, template: str) -> str:
    r"""The text of an instruction and its input.

    Example: `("Sort the words.", "b a", "plain")` → `"Sort the words.\nb a\n"`.
    """
    if template in CHATS:
        return json.dumps([_question(instruction, input)], ensure_ascii=False)
    if template == "alpaca" and not input:
        template = "alpaca_no_input"
    return TEMPLATES[template].format(instruction=instruction, input=input)


def few_shot(chain: Chain, examples: Sequence[Chain], template: str, prompting: str) -> str:
    """The prompt of a chain after worked examples; `prompting` is "direct" (no examples), "cot" or "ltm".

    In a conversation the worked examples are turns that came before.
    """
    last = prompt(chain.instruction, chain.input, template)
    if prompting == "direct":
        return last
    if template in CHATS:
        turns = [turn for example in examples for turn in _turns(example, prompting)]
        return json.dumps([*turns, *json.loads(last)], ensure_ascii=False)
    shots = [f"{prompt(each.instruction, each.input, template)} {_worked(each, prompting)}" for each in examples]
    return "\n\n".join([*shots, last])


def encode_prompt(text: str, template: str, vocabulary: Vocabulary) -> list[int]:
    """The ids of a prompt's text, all but the begin id.

    Raises:
      UserError: the template is a conversation, and the vocabulary has no rules for one, or they do not take it.
    """
    if template not in CHATS:
        ids = vocabulary.encode(text)
    elif isinstance(vocabulary, Converses):
        ids = vocabulary.encode_chat(json.loads(text))
    else:
        raise UserError("config.data.template", template, f"the vocabulary {vocabulary.name} lays out no conversations")
    return [*ids, vocabulary.eos_id] if vocabulary.ends_inputs else ids


def _question(instruction: str, input: str) -> dict[str, str]:
    return {"role": "user", "content": f"{instruction}\n\n{input}" if input else instruction}


def _turns(chain: Chain, prompting: str) -> list[dict[str, str]]:
    return [_question(chain.instruction, chain.input), {"role": "assistant", "content": _worked(chain, prompting)}]


def _worked(chain: Chain, prompting: str) -> str:
    parts = "".join(f"{k}. {step.instruction}\n" for k, step in enumerate(chain.steps, 1)) if prompting == "ltm" else ""
    return f"{parts}{chain.targets}"


def choose_examples(chains: Iterable[Chain], shots: int = SHOTS) -> list[Chain]:
    """The worked examples among some chains: the first by the hash of their ids, so that order does not matter."""
    complete = [chain for chain in chains if None not in chain.outputs]
    return sorted(complete, key=lambda chain: digest(chain.id))[:shots]
