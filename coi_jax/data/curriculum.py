"""A curriculum by chain length: a run in stages, each of the lengths that have joined by then (Bengio et al. 2009)."""

import bisect
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig, StepsConfig
from coi_jax.data.mixing import STAGE, Order, random_numbers
from coi_jax.data.step_plans import ExamplesPlan, Plan, Rows, TokensPlan

MakePlan = Callable[[RunConfig, list[int]], ExamplesPlan | TokensPlan]


class CurriculumPlan:
    """A plan whose steps are those of one plan after another, one for each stage.

    A stage ends where the next length joins, at a step that the config names, so that a longer run has the same steps.
    The run has as many steps as without a curriculum. Each stage begins its examples anew.

    Args:
      config: of the whole run.
      starts: the step from which the examples of each task are met.
      sizes: the number of examples of each task.
      make: returns the plan of a config on some tasks, whose examples it numbers through.

    Raises:
      UserError: a length joins after the end of the run; raises as the plans.
    """

    def __init__(self, config: RunConfig, starts: Sequence[int], sizes: Sequence[int], make: MakePlan) -> None:
        whole = make(config, [*range(len(sizes))])
        self.steps_per_epoch, self.total_steps = whole.steps_per_epoch, whole.total_steps
        if max(starts) >= self.total_steps:
            hint = (
                f"the run has {self.total_steps} steps, and a length joins at step {max(starts)}; let it join earlier"
            )
            raise UserError("config.data.curriculum", config.data.curriculum, hint)
        self._starts = sorted(set(starts))
        self._stages: list[Plan] = []
        self._examples: list[Order] = []
        for number, (start, end) in enumerate(itertools.pairwise([*self._starts, self.total_steps])):
            tasks = [task for task, step in enumerate(starts) if step <= start]
            self._stages.append(make(_config_of_stage(config, number, end - start), tasks))
            self._examples.append(_numbers(sizes, tasks))
        self.rows = max(stage.rows for stage in self._stages)
        self.useful = self._useful()

    def of_step(self, step: int) -> Rows:
        """Return the rows of a step that have examples; at most `rows`."""
        number = bisect.bisect_right(self._starts, step) - 1
        examples = self._examples[number]
        return [examples[row] for row in self._stages[number].of_step(step - self._starts[number])]

    def _useful(self) -> list[float]:
        weights = [stage.rows * stage.total_steps for stage in self._stages]
        useful = np.average([stage.useful for stage in self._stages], axis=0, weights=weights)
        shares: list[float] = (useful * sum(weights) / (self.rows * self.total_steps)).tolist()
        return shares


def _config_of_stage(config: RunConfig, number: int, steps: int) -> RunConfig:
    """Return the config of a stage: of its own length, and with an order of examples of its own."""
    seed = config.seed if number == 0 else int(random_numbers(1, config.seed, STAGE, number)[0]) % 2**31
    length = StepsConfig(unit="steps", count=steps)
    return config.model_copy(update={"seed": seed, "train": config.train.model_copy(update={"length": length})})


def _numbers(sizes: Sequence[int], tasks: Sequence[int]) -> Order:
    """Return the numbers of the examples of some tasks among those of all."""
    first = np.cumsum([0, *sizes])
    return np.concatenate([np.arange(first[task], first[task + 1]) for task in tasks])
