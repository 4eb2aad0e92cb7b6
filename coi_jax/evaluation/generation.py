"""Generate the answers that are missing, and write each down as soon as it is there."""

import os
from collections.abc import Callable, Collection, Sequence

from etils import epath

from coi_jax.common.progress import Bar
from coi_jax.common.storage import AppendFile
from coi_jax.evaluation.timing import timed
from coi_jax.inference.generator import Answer
from coi_jax.inference.model import Model
from coi_jax.inference.rows import Prompt
from coi_jax.parallel import processes


def generate_missing(
    model: Model,
    title: str,
    prompts: Sequence[Prompt],
    existing: Collection[str],
    path: epath.Path,
    write: Callable[[AppendFile, Answer], None],
) -> None:
    """Generate the answers to the prompts that have none, with a progress bar.

    All processes share the work on every batch and so have every answer; the file of the others is the null device.

    Args:
      model: the model that answers.
      title: of the progress bar.
      prompts: all of them; an answer names its prompt by its place among them.
      existing: ids of the prompts that have an answer.
      path: of the file that answers are appended to.
      write: is called with that file and every answer, on every process.
    """
    skip = frozenset(existing)
    missing = [prompt for prompt in prompts if prompt.id not in skip]
    if not missing:
        return
    compiled = len(model.generator.shapes)
    with (
        timed(path.parent, lambda: len(existing)),
        Bar(title, len(prompts), len(prompts) - len(missing)) as bar,
        AppendFile(path if processes.is_primary() else os.devnull, "workdir") as file,
    ):
        for answers in model.answer_groups(prompts, skip):
            for answer in answers:
                write(file, answer)
            shapes = len(model.generator.shapes)
            bar.advance(len(answers), note=f"{shapes} shapes compiled", is_typical=shapes == compiled)
            compiled = shapes
