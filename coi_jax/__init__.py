"""Chain-of-Instructions tuning in JAX.

The names of `__all__` are the Python API. Each is imported when it is first used, so that `import coi_jax` takes a
moment and reading chains starts no JAX.

    import coi_jax

    model = coi_jax.load_run("runs/coi12")
    answer = coi_jax.answer_chain(model, ["Remove the first word.", "Reverse the order of the words."], "pear, fig")
    for step in answer.steps:
        print(step.instruction, "→", step.output)
"""

from coi_jax.common import interrupts

interrupts.install_in_commands()  # first, so that Ctrl-C is one line from the beginning

import importlib  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from coi_jax.api import Answer as Answer
    from coi_jax.api import AnswerStep as AnswerStep
    from coi_jax.api import answer_chain as answer_chain
    from coi_jax.api import load_run as load_run
    from coi_jax.api import load_weights as load_weights
    from coi_jax.api import score_predictions as score_predictions
    from coi_jax.chains.chain import Chain as Chain
    from coi_jax.chains.chain import Step as Step
    from coi_jax.chains.chain import parse as parse
    from coi_jax.chains.chain import render as render
    from coi_jax.chains.dataset import read_chains as read_chains
    from coi_jax.chains.dataset import write_chains as write_chains
    from coi_jax.common.errors import UserError as UserError
    from coi_jax.inference.model import Model as Model

# The module of each name.
_MODULES = {
    "Answer": "coi_jax.api",
    "AnswerStep": "coi_jax.api",
    "Chain": "coi_jax.chains.chain",
    "Model": "coi_jax.inference.model",
    "Step": "coi_jax.chains.chain",
    "UserError": "coi_jax.common.errors",
    "answer_chain": "coi_jax.api",
    "load_run": "coi_jax.api",
    "load_weights": "coi_jax.api",
    "parse": "coi_jax.chains.chain",
    "read_chains": "coi_jax.chains.dataset",
    "render": "coi_jax.chains.chain",
    "score_predictions": "coi_jax.api",
    "write_chains": "coi_jax.chains.dataset",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a name of the API from its module."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """List the names of the API too."""
    return sorted({*globals(), *_MODULES})
