"""How a chain becomes the text that a model is shown.

A template lays out instruction and input. The paper's prompting baselines (section 4) put worked examples before it:
chain of thought shows answers step by step, least-to-most shows the instruction taken apart first. The paper's own
prompts are not public; the wording here is this project's.
"""

from collections.abc import Iterable, Sequence

from coi_jax.chain import Chain
from coi_jax.files import digest

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

SHOTS = 7  # paper, section 4: seven-shot chain of thought


def prompt(instruction: str, input: str, template: str) -> str:
    r"""The text of an instruction and its input.

    Example: `("Sort the words.", "b a", "plain")` → `"Sort the words.\nb a\n"`.
    """
    if template == "alpaca" and not input:
        template = "alpaca_no_input"
    return TEMPLATES[template].format(instruction=instruction, input=input)


def few_shot(chain: Chain, examples: Sequence[Chain], template: str, prompting: str) -> str:
    """The prompt of a chain after worked examples; `prompting` is "direct" (no examples), "cot" or "ltm"."""
    last = prompt(chain.instruction, chain.input, template)
    if prompting == "direct":
        return last
    shots = [_worked(example, template, prompting) for example in examples]
    return "\n\n".join([*shots, last])


def _worked(chain: Chain, template: str, prompting: str) -> str:
    parts = "".join(f"{k}. {step.instruction}\n" for k, step in enumerate(chain.steps, 1)) if prompting == "ltm" else ""
    return f"{prompt(chain.instruction, chain.input, template)} {parts}{chain.targets}"


def choose_examples(chains: Iterable[Chain], shots: int = SHOTS) -> list[Chain]:
    """The worked examples among some chains: the first by the hash of their ids, so that order does not matter."""
    complete = [chain for chain in chains if None not in chain.outputs]
    return sorted(complete, key=lambda chain: digest(chain.id))[:shots]
